//! Ops by name, and sizes from the command line.

use codelsi_engine::{Error, Result};
use codelsi_kernels::ALL;
use codelsi_kernels::check::find;
use codelsi_kernels::spec::Spec;

/// Returns the specs of these names; without names, all that have kernels.
///
/// # Errors
/// When a name is not that of an op.
pub fn specs(names: &[String]) -> Result<Vec<&'static Spec>> {
    if names.is_empty() {
        return Ok(ALL.iter().copied().filter(|spec| !spec.sources.is_empty()).collect());
    }
    names.iter().map(|name| find(name)).collect()
}

/// Parses sizes such as `2048,5120`, as many as the op's shapes have.
///
/// # Errors
/// When they are no numbers above 0, or another number of them.
pub fn sizes(spec: &Spec, text: &str) -> Result<Vec<usize>> {
    let parsed: Option<Vec<usize>> =
        text.split(',').map(|n| n.trim().parse().ok().filter(|&n| n > 0)).collect();
    let wanted = spec.shapes.sizes;
    let fits = |sizes: &Vec<usize>| sizes.len() == wanted.split(',').count();
    parsed.filter(fits).ok_or_else(|| {
        Error::new(format!("--shape {text}: {} takes {wanted}, separated by commas", spec.name))
    })
}
