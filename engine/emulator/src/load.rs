//! Loading of a module: allocates its variables in device memory and decodes its kernels.

use crate::decode::{self, ModuleSymbol, Symbols};
use crate::error::{Error, Result};
use crate::memory::GlobalMemory;
use crate::module::{Kernel, Module};
use crate::ptx::{self, Initializer, StateSpace, Variable};
use std::sync::Arc;

/// Parses and decodes a module.
pub fn module(text: &str, memory: &Arc<GlobalMemory>) -> Result<Module> {
    let parsed = ptx::parse(text)?;
    // Owns the variables from the start, so that they are freed on an error.
    let mut module = Module { kernels: Vec::new(), variables: Vec::new(), memory: memory.clone() };
    let mut symbols = Symbols::new();
    for v in &parsed.variables {
        let size = byte_size(v);
        let symbol = match (v.space, v.external || v.array && v.count == 0) {
            (StateSpace::Shared, true) => ModuleSymbol::Dynamic(v.align),
            (StateSpace::Shared, false) => {
                let size =
                    size.try_into().map_err(|_| Error::ptx(v.line, format!("'{}' is too large", v.name)))?;
                ModuleSymbol::Shared(size, v.align)
            }
            (StateSpace::Global | StateSpace::Const, false) => {
                let address = memory.alloc(size as usize)?;
                module.variables.push(address);
                ModuleSymbol::Device(address)
            }
            _ => return Err(Error::ptx(v.line, format!("'{}' is external and cannot be resolved", v.name))),
        };
        symbols.insert(v.name, symbol);
    }
    for v in parsed.variables.iter().filter(|v| matches!(v.space, StateSpace::Global | StateSpace::Const)) {
        if let Some(&ModuleSymbol::Device(address)) = symbols.get(v.name) {
            memory.write(address, &initial_bytes(v, &symbols)?)?;
        }
    }
    let files = Arc::new(parsed.files.iter().map(|&(n, path)| (n, path.to_string())).collect::<Vec<_>>());
    for f in parsed.functions.iter().filter(|f| f.entry) {
        module.kernels.push(Kernel {
            name: f.name.to_string(),
            max_threads: f.max_threads,
            min_blocks: f.min_blocks,
            code: decode::kernel_code(&parsed, f, &symbols)?,
            files: files.clone(),
            memory: memory.clone(),
        });
    }
    Ok(module)
}

fn byte_size(v: &Variable<'_>) -> u64 {
    ptx::type_size(v.ty).unwrap_or(1) as u64 * v.count
}

/// Returns the initial bytes of a variable; elements without initializer are zero.
fn initial_bytes(v: &Variable<'_>, symbols: &Symbols<'_>) -> Result<Vec<u8>> {
    let element = ptx::type_size(v.ty).unwrap_or(1) as usize;
    let mut bytes = vec![0; byte_size(v) as usize];
    if v.init.len() * element > bytes.len() {
        return Err(Error::ptx(v.line, format!("'{}' has too many initial values", v.name)));
    }
    for (slot, init) in bytes.chunks_exact_mut(element).zip(&v.init) {
        let value = match *init {
            Initializer::Value(bits) if v.ty == "f32" => narrow_float(bits) as u64,
            Initializer::Value(bits) => bits,
            Initializer::Address(name, offset) => {
                let base = match symbols.get(name) {
                    Some(&ModuleSymbol::Device(address)) => address,
                    _ => return Err(Error::ptx(v.line, format!("unknown variable '{name}'"))),
                };
                base.wrapping_add(offset as u64)
            }
        };
        slot.copy_from_slice(&value.to_le_bytes()[..element]);
    }
    Ok(bytes)
}

/// Returns the f32 bits of a float literal: a decimal one is stored as a double, a hexadecimal one already has 32 bits.
fn narrow_float(bits: u64) -> u32 {
    if bits >> 32 != 0 { (f64::from_bits(bits) as f32).to_bits() } else { bits as u32 }
}
