//! Kernel signatures, read from PTX.

use super::launch::ParameterKind;
use crate::{Error, Result};

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
