//! Loading a module: its variables get device memory, its kernels are decoded.

use crate::decode::{self, Symbol, Symbols};
use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::module::{Kernel, Module};
use crate::ptx::{self, Init, Space, Variable};
use std::sync::Arc;

/// Parses and decodes a module.
pub fn module(text: &str, memory: &Arc<Memory>) -> Result<Module> {
    let unit = ptx::parse(text)?;
    // Owns the variables from the start, so that an error frees them.
    let mut module = Module { kernels: Vec::new(), variables: Vec::new(), memory: memory.clone() };
    let mut symbols = Symbols::new();
    for v in &unit.variables {
        let size = size(v);
        let symbol = match (v.space, v.external || v.array && v.count == 0) {
            (Space::Shared, true) => Symbol::Dynamic(v.align),
            (Space::Shared, false) => {
                let size =
                    size.try_into().map_err(|_| Error::ptx(v.line, format!("'{}' is too large", v.name)))?;
                Symbol::Shared(size, v.align)
            }
            (Space::Global | Space::Const, false) => {
                let address = memory.alloc(size as usize)?;
                module.variables.push(address);
                Symbol::Device(address)
            }
            _ => return Err(Error::ptx(v.line, format!("'{}' is external and cannot be resolved", v.name))),
        };
        symbols.insert(v.name, symbol);
    }
    for v in unit.variables.iter().filter(|v| matches!(v.space, Space::Global | Space::Const)) {
        if let Some(&Symbol::Device(address)) = symbols.get(v.name) {
            memory.write(address, &image(v, &symbols)?)?;
        }
    }
    let files = Arc::new(unit.files.iter().map(|&(n, path)| (n, path.to_string())).collect::<Vec<_>>());
    for f in unit.functions.iter().filter(|f| f.entry) {
        module.kernels.push(Kernel {
            name: f.name.to_string(),
            max_threads: f.max_threads,
            min_blocks: f.min_blocks,
            program: decode::program(&unit, f, &symbols)?,
            files: files.clone(),
            memory: memory.clone(),
        });
    }
    Ok(module)
}

fn size(v: &Variable<'_>) -> u64 {
    ptx::type_size(v.ty).unwrap_or(1) as u64 * v.count
}

/// A variable's initial bytes; what the initializer leaves out is zero.
fn image(v: &Variable<'_>, symbols: &Symbols<'_>) -> Result<Vec<u8>> {
    let element = ptx::type_size(v.ty).unwrap_or(1) as usize;
    let mut bytes = vec![0; size(v) as usize];
    if v.init.len() * element > bytes.len() {
        return Err(Error::ptx(v.line, format!("'{}' has too many initial values", v.name)));
    }
    for (slot, init) in bytes.chunks_exact_mut(element).zip(&v.init) {
        let value = match *init {
            Init::Value(bits) if v.ty == "f32" => narrow_float(bits) as u64,
            Init::Value(bits) => bits,
            Init::Address(name, offset) => {
                let base = match symbols.get(name) {
                    Some(&Symbol::Device(address)) => address,
                    _ => return Err(Error::ptx(v.line, format!("unknown variable '{name}'"))),
                };
                base.wrapping_add(offset as u64)
            }
        };
        slot.copy_from_slice(&value.to_le_bytes()[..element]);
    }
    Ok(bytes)
}

/// A decimal literal is kept as a double; hexadecimal ones fit 32 bits as they are.
fn narrow_float(bits: u64) -> u32 {
    if bits >> 32 != 0 { (f64::from_bits(bits) as f32).to_bits() } else { bits as u32 }
}
