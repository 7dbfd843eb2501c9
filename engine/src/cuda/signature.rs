//! Signatures of kernels, read from their PTX.

use super::launch::Kind;
use crate::{Error, Result};

/// The parameters of the entry `name`.
pub(super) fn of(ptx: &str, name: &str) -> Result<Vec<Kind>> {
    let unknown = |what: String| Error::new(what).at(name);
    let entry = format!(".entry {name}(");
    let start = ptx.find(&entry).ok_or_else(|| unknown("the source has no such kernel".into()))?;
    let list = &ptx[start + entry.len()..];
    let list = &list[..list.find(')').ok_or_else(|| unknown("its parameter list does not end".into()))?];
    list.split(',')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .map(|p| kind(p).ok_or_else(|| unknown(refused(p))))
        .collect()
}

fn kind(parameter: &str) -> Option<Kind> {
    Some(match parameter.strip_prefix(".param")?.split_whitespace().next()? {
        ".f32" => Kind::Float32,
        ".u32" | ".s32" | ".b32" => Kind::Int32,
        ".u64" | ".s64" | ".b64" => Kind::Word64,
        _ => return None,
    })
}

fn refused(parameter: &str) -> String {
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
        assert_eq!(of(PTX, "k").unwrap(), [Kind::Word64, Kind::Int32, Kind::Float32, Kind::Word64]);
        assert_eq!(of(PTX, "none").unwrap(), []);
        assert_eq!(of(PTX, "kk").unwrap_err().to_string(), "kk: the source has no such kernel");
        assert!(of(PTX, "odd").unwrap_err().to_string().contains("nothing else"));
    }
}
