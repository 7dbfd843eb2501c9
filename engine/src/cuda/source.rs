//! CUDA source files, and the preprocessor definitions that each is compiled with.

use crate::{DType, Error, Result};
use std::fmt;

/// A CUDA source file, the headers it may include, and the ways it is compiled.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The file's name, as errors print it.
    pub name: &'static str,
    pub text: &'static str,
    /// Name and text of each header.
    pub headers: &'static [(&'static str, &'static str)],
    /// Constants that kernels and launches share, defined in every variant; Rust is their only source.
    pub constants: &'static [Define],
    /// Lists every way to compile the source.
    pub variants: fn() -> Vec<Variant>,
}

impl Source {
    /// NVRTC's options for one variant and architecture.
    ///
    /// # Errors
    /// When the source has no such variant.
    pub(super) fn options(&self, variant: Variant, arch: &str) -> Result<Vec<String>> {
        if !(self.variants)().contains(&variant) {
            return Err(Error::new(format!("is not made to be compiled as `{variant}`")).at(self.name));
        }
        let fixed = ["--std=c++17", "--generate-line-info", "--ptxas-options=-v"].map(String::from);
        let arch = format!("--gpu-architecture={arch}");
        let defines = self.constants.iter().chain(variant.defines()).map(|define| format!("-D{define}"));
        Ok(fixed.into_iter().chain([arch]).chain(defines).collect())
    }
}

/// A preprocessor definition, printed as `NAME=value`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Define {
    name: &'static str,
    value: DefineValue,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DefineValue {
    Int(usize),
    /// The CUDA type that elements are stored in.
    DType(DType),
    /// An initializer of an array.
    List(&'static [usize]),
}

impl Define {
    /// A number.
    pub const fn int(name: &'static str, value: usize) -> Self {
        Define { name, value: DefineValue::Int(value) }
    }

    /// An initializer of an array: `{1, 2}`. Tables are given row by row.
    pub const fn list(name: &'static str, values: &'static [usize]) -> Self {
        Define { name, value: DefineValue::List(values) }
    }
}

impl fmt::Display for Define {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.name)?;
        match self.value {
            DefineValue::Int(value) => write!(f, "{value}"),
            DefineValue::DType(DType::BF16) => f.write_str("bf16"),
            DefineValue::DType(DType::F32) => f.write_str("float"),
            DefineValue::DType(DType::I32) => f.write_str("int"),
            DefineValue::List(values) => {
                let values: Vec<String> = values.iter().map(usize::to_string).collect();
                write!(f, "{{{}}}", values.join(","))
            }
        }
    }
}

/// One way to compile a source, printed as its definitions: `E=bf16 VEC=8`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variant([Option<Define>; Variant::MAX_DEFINES]);

impl Variant {
    const MAX_DEFINES: usize = 4;

    /// No definition.
    pub const PLAIN: Variant = Variant([None; Variant::MAX_DEFINES]);

    /// Adds a number.
    pub const fn int(self, name: &'static str, value: usize) -> Self {
        self.with(Define::int(name, value))
    }

    /// Adds an element type.
    pub const fn dtype(self, name: &'static str, dtype: DType) -> Self {
        self.with(Define { name, value: DefineValue::DType(dtype) })
    }

    const fn with(mut self, define: Define) -> Self {
        let mut at = 0;
        while self.0[at].is_some() {
            at += 1;
        }
        self.0[at] = Some(define);
        self
    }

    fn defines(&self) -> impl Iterator<Item = &Define> {
        self.0.iter().flatten()
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let defines: Vec<String> = self.defines().map(Define::to_string).collect();
        f.pad(&defines.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_hold_constants_and_the_variants_definitions() {
        const TILE: [[usize; 2]; 2] = [[16, 32], [64, 128]];
        static SOURCE: Source = Source {
            name: "op.cu",
            text: "",
            headers: &[],
            constants: &[Define::int("SLAB", 64), Define::list("TILES", TILE.as_flattened())],
            variants: || vec![Variant::PLAIN.dtype("E", DType::BF16).int("VEC", 8)],
        };
        let variant = (SOURCE.variants)()[0];
        assert_eq!(variant.to_string(), "E=bf16 VEC=8");
        let options = SOURCE.options(variant, "sm_80").unwrap();
        assert_eq!(
            options[3..],
            ["--gpu-architecture=sm_80", "-DSLAB=64", "-DTILES={16,32,64,128}", "-DE=bf16", "-DVEC=8"]
        );
        let error = SOURCE.options(Variant::PLAIN, "sm_80").unwrap_err().to_string();
        assert!(error.contains("op.cu") && error.contains("is not made to be compiled as ``"), "{error}");
    }
}
