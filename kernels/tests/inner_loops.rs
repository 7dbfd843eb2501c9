//! The inner loops of the CPU's micro-kernels, held by their machine code: a clock would tell less, and not on every machine.

use codelsi_engine::{Ctx, DType, Device, Label};
use codelsi_kernels::gemm::linear;
use codelsi_testing::or_skip;
use std::process::Command;

/// An instruction: its address, and its text.
type Instruction = (u64, String);

/// Returns the instructions of every function of this program whose name contains `name`, as binutils' `objdump` prints them.
fn functions(name: &str) -> Result<Vec<Vec<Instruction>>, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new("objdump").args(["-d", "--no-show-raw-insn", "-C"]).arg(program).output();
    let output = output.map_err(|e| format!("objdump (of binutils) does not start: {e}"))?;
    let mut functions = Vec::new();
    let mut inside = false;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if line.ends_with(">:") {
            inside = line.contains(name);
            functions.extend(inside.then(Vec::new));
        } else if let (true, Some((address, text))) = (inside, line.split_once(":\t"))
            && let (Ok(address), Some(function)) =
                (u64::from_str_radix(address.trim(), 16), functions.last_mut())
        {
            function.push((address, text.to_owned()));
        }
    }
    Ok(functions)
}

/// Returns the loops of a function that hold no other loop: what lies between a jump backward and its target.
fn inner_loops(function: &[Instruction]) -> Vec<&[Instruction]> {
    let mut loops: Vec<(usize, usize)> = Vec::new();
    for (end, (address, text)) in function.iter().enumerate() {
        let mut words = text.split_whitespace();
        let (Some(name), Some(target)) = (words.next(), words.next()) else { continue };
        let Ok(target) = u64::from_str_radix(target, 16) else { continue };
        if name.starts_with('j') && target < *address {
            loops.extend(function.iter().position(|i| i.0 == target).map(|start| (start, end)));
        }
    }
    let is_inner = |&(start, end): &(usize, usize)| {
        !loops.iter().any(|&(s, e)| (s, e) != (start, end) && s >= start && e <= end)
    };
    loops.iter().filter(|l| is_inner(l)).map(|&(start, end)| &function[start..=end]).collect()
}

/// A tile is two multiply-adds for each broadcast word of A and little besides: no register goes to memory and back, and in the
/// largest tile at most seven instructions serve four multiply-adds (AVX2: nine).
#[test]
fn tiles_multiply_from_registers() {
    // A program holds what it uses.
    let device = Device::cpu();
    let zeros = device.zeros(Label::Activations, [2, 2], DType::BF16);
    assert!(linear(&Ctx::inference(&device), &zeros, &zeros).is_ok());
    for (set, multiply, most_multiplies, per_four) in [
        ("avx512_bf16", "vdpbf16ps", 24, 7),
        ("avx512", "vfmadd", 48, 7),
        ("avx2", "vfmadd", 20, 9),
        ("portable", "mulps", 4, 26),
    ] {
        let Some(functions) = or_skip(functions(&format!("gemm::cpu::micro::{set}"))) else { return };
        // `avx512` is the beginning of another name.
        let count = |body: &[Instruction]| body.iter().filter(|i| i.1.contains(multiply)).count();
        let loops: Vec<&[Instruction]> = functions
            .iter()
            .flat_map(|function| inner_loops(function))
            .filter(|body| count(body) > 0)
            .collect();
        let widest = loops.iter().map(|body| count(body)).max().unwrap_or(0);
        assert!(widest >= most_multiplies, "{set}: the widest loop has {widest} multiply-adds");
        for body in loops {
            let text = || body.iter().map(|i| i.1.as_str()).collect::<Vec<_>>().join("\n");
            assert!(!body.iter().any(|i| i.1.contains("%rsp")), "{set} spills:\n{}", text());
            if count(body) == widest {
                assert!(4 * body.len() <= per_four * widest, "{set}: {widest} multiply-adds in\n{}", text());
            }
        }
    }
}

/// A masked load of a constant whose mask is empty costs hundreds of cycles while the constant's page is not mapped, and never
/// maps it: rounding to bf16, whose mask is that of NaN, took three quarters of attention's time.
#[test]
fn constants_are_not_loaded_under_a_mask() {
    // A program holds what it uses.
    assert!(!codelsi_kernels::ALL.is_empty());
    let Some(functions) = or_skip(functions("codelsi_kernels")) else { return };
    let vectors = functions.iter().flatten().filter(|i| i.1.contains("%zmm")).count();
    assert!(vectors > 10_000, "{vectors} instructions of AVX-512: is this the program?");
    let masked: Vec<&str> = functions
        .iter()
        .flatten()
        .map(|i| i.1.as_str())
        .filter(|text| text.contains("(%rip)") && text.contains("{%k"))
        .collect();
    assert!(masked.is_empty(), "{} masked loads of constants, e.g. {}", masked.len(), masked[0]);
}
