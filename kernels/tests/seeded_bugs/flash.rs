use crate::bug::Bug;

pub const BUGS: &[Bug] = &[];
