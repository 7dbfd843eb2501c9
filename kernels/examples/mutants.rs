//! Mutants of an op's kernels: draws small wrong edits of its CUDA text and lists those that no case tells from the text as
//! it is. Each is a hole among the cases, or an edit that changes nothing that matters.
//!
//!     cargo run --release -p codelsi-kernels --example mutants -- gemm 20 [SEED]

use codelsi_engine::Result;
use codelsi_kernels::check::find;
use codelsi_kernels::check::mutants::{MutantOutcome, draw, outcome};
use codelsi_kernels::spec::Draw;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: u64| args.get(i).and_then(|n| n.parse().ok()).unwrap_or(default);
    let spec = find(args.first().map_or("", |name| name))?;
    let (count, seed) = (number(1, 20) as usize, number(2, 1));
    let (mut caught, mut survived) = (0, 0);
    for i in 0..count {
        let mut sizes = Draw::new(seed, spec.name, i);
        let source = sizes.pick(spec.sources);
        let mutant = draw(source, &mut sizes);
        let outcome = outcome(spec, source, &mutant)?;
        match &outcome {
            MutantOutcome::Caught(how) => {
                caught += 1;
                println!("caught    {mutant}  [{}]", how.chars().take(110).collect::<String>());
            }
            MutantOutcome::Survived => {
                survived += 1;
                println!("SURVIVED  {mutant}");
            }
            MutantOutcome::Stillborn => {}
        }
    }
    println!("{}: {caught} mutants caught, {survived} survived, of {count} drawn", spec.name);
    Ok(())
}
