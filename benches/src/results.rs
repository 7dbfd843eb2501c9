//! Timings by name, and the report that is printed at the end.

use crate::machine::{Machine, Rate};
use codelsi_engine::DType;
use codelsi_kernels::spec::Cost;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The timings of one bench, and the cost of one call.
pub struct Timings {
    pub name: String,
    pub dtype: DType,
    pub cost: Cost,
    pub times: Vec<Duration>,
}

impl Timings {
    /// An empty list of timings.
    pub fn new(name: String, dtype: DType, cost: Cost) -> Self {
        Timings { name, dtype, cost, times: Vec::new() }
    }

    fn median(&mut self) -> Option<Duration> {
        self.times.sort();
        self.times.get(self.times.len() / 2).copied()
    }
}

/// Prints a line for each bench that ran and returns `{name: {median_s, gb_per_s or tflop_per_s, roof}}`.
pub fn report(machine: &Machine, all: Vec<Timings>) -> Value {
    let mut object = Map::new();
    for mut timings in all {
        let Some(median) = timings.median() else { continue };
        let Rate { unit, value, roof } = machine.rate(timings.cost, timings.dtype, median);
        let (name, seconds) = (timings.name, median.as_secs_f64());
        println!(
            "{name:<64} {:>10.3} ms {value:>9.2} {unit:<11} {:>5.1} % of the roof",
            1e3 * seconds,
            1e2 * roof
        );
        object.insert(name, json!({ "median_s": seconds, unit: value, "roof": roof }));
    }
    Value::Object(object)
}
