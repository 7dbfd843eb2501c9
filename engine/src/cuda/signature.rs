//! Kernels' signatures and bodies, read from PTX.

use super::launch::ParameterKind;
use super::nvrtc::Code;
use crate::{Error, Result};

impl Code {
    /// Returns the name and the instructions of every kernel, without lines that only say where they come from: kernels
    /// of two variants that are equal in it are the same machine code.
    pub fn kernels(&self) -> Vec<(&str, String)> {
        let entries = self.ptx.split(".entry ").skip(1);
        entries.filter_map(|entry| Some((entry.split_once('(')?.0, instructions(entry)))).collect()
    }
}

/// Returns the lines of a kernel up to its closing brace.
fn instructions(entry: &str) -> String {
    let place = |line: &str| [".loc", "//", "$L__tmp", "$L__func"].iter().any(|mark| line.starts_with(mark));
    let lines = entry.lines().take_while(|line| !line.starts_with('}')).map(str::trim);
    lines.filter(|line| !line.is_empty() && !place(line)).collect::<Vec<_>>().join("\n")
}

/// Returns the kinds of the parameters that the kernel `name` takes.
pub(super) fn parameters(ptx: &str, name: &str) -> Result<Vec<ParameterKind>> {
    let unknown = |what: String| Error::new(what).at(name);
    let entry = format!(".entry {name}(");
    let start = ptx.find(&entry).ok_or_else(|| unknown("the source has no such kernel".into()))?;
    let list = &ptx[start + entry.len()..];
    let list = &list[..list.find(')').ok_or_else(|| unknown("its parameter list does not end".into()))?];
    list.split(',')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .map(|p| parameter_kind(p).ok_or_else(|| unknown(unsupported(p))))
        .collect()
}

fn parameter_kind(parameter: &str) -> Option<ParameterKind> {
    Some(match parameter.strip_prefix(".param")?.split_whitespace().next()? {
        ".f32" => ParameterKind::Float32,
        ".u32" | ".s32" | ".b32" => ParameterKind::Int32,
        ".u64" | ".s64" | ".b64" => ParameterKind::Word64,
        _ => return None,
    })
}

fn unsupported(parameter: &str) -> String {
    format!("`{parameter}`: a kernel takes pointers, 32- and 64-bit integers and floats, nothing else")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = "
.visible .entry other(
\t.param .u64 other_param_0
)
.visible .entry k(
\t.param .u64 .ptr .align 1 k_param_0,
\t.param .u32 k_param_1,
\t.param .f32 k_param_2,
\t.param .b64 k_param_3
)
.visible .entry none()
.visible .entry odd(
\t.param .align 4 .b8 odd_param_0[12]
)";

    #[test]
    fn kernels_are_compared_by_their_instructions() {
        let ptx = |line: &str, add: &str| {
            format!(
                ".visible .entry one()\n{{\n\t.loc\t1 {line} 5\n\t{add}\n$L__tmp{line}:\n\tret;\n\n}}\n\t// end"
            )
        };
        let code = |text: String| Code { ptx: text, cubin: Vec::new(), log: String::new() };
        let (one, other) = (code(ptx("7", "add.s32 a, b, c;")), code(ptx("8", "add.s32 a, b, c;")));
        assert_eq!(one.kernels(), [("one", "one()\n{\nadd.s32 a, b, c;\nret;".to_owned())]);
        assert_eq!(one.kernels(), other.kernels());
        assert_ne!(one.kernels(), code(ptx("7", "sub.s32 a, b, c;")).kernels());
    }

    #[test]
    fn parameters_are_read_in_order() {
        assert_eq!(
            parameters(PTX, "k").unwrap(),
            [ParameterKind::Word64, ParameterKind::Int32, ParameterKind::Float32, ParameterKind::Word64]
        );
        assert_eq!(parameters(PTX, "none").unwrap(), []);
        assert_eq!(parameters(PTX, "kk").unwrap_err().to_string(), "kk: the source has no such kernel");
        assert!(parameters(PTX, "odd").unwrap_err().to_string().contains("nothing else"));
    }
}
