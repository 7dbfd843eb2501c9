//! Our kernels beside their peers in one run, in turns: cuBLASLt for products (feature `cublaslt`, on a GPU), and PyTorch
//! for products, attention (`scaled_dot_product_attention`), norms, cross-entropy and LoRA, at sizes of Code Llama 13B.
//!
//!     cargo bench -p codelsi-benches --bench peers --features cublaslt [-- FILTER]
//!
//! | variable | |
//! |---|---|
//! | `CODELSI_PEER` | the command of the peer; `none` for none; default `python3 tools/peers/pytorch.py --on-demand` |
//! | `CODELSI_BENCH_ROUNDS` | runs of each in a comparison; default 15, at least 3 |
//! | `CODELSI_BENCH_DEVICE` | `cpu` or `cuda`; without it a GPU if there is one |
//! | `CODELSI_BENCH_SAVE` | `1` keeps the results as a dated file in `benches/results` |
//!
//! FILTER is a part of a name `OP/BF16 SIZES PASS`. A ratio is the peer's time by ours, above 1 where ours is faster, the
//! geometric mean over the rounds with an interval that holds for the table ([`PairedRatio`]). The last line is one JSON
//! object: {name: {peer: {ratio, low, high, ours_s, peer_s}}}.

use codelsi_benches::machine::Machine;
use codelsi_benches::paired::PairedRatio;
use codelsi_benches::peer::{Answer, Peer};
use codelsi_benches::results::save;
use codelsi_engine::{DType, Error, Result};
use codelsi_kernels::ALL;
use codelsi_kernels::spec::Spec;
use codelsi_kernels::stopwatch::{Pass, TimedCase};
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// The command that stands beside our kernels if none is named.
const PYTORCH: &str = "python3 tools/peers/pytorch.py --on-demand";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("peers: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Times (ours, the peer's) of a case, in seconds.
struct Comparison {
    case: String,
    peer: String,
    pairs: Vec<(f64, f64)>,
}

/// The peers, and the number of rounds.
struct Peers {
    rounds: usize,
    program: Option<Peer>,
    library: bool,
}

fn run() -> Result<()> {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let mut machine = Machine::new()?;
    let mut peers = Peers { rounds: rounds()?, program: program()?, library: library(&machine) };
    if peers.program.is_none() && !peers.library {
        return Err(Error::new("there is no peer to compare with; CODELSI_PEER names one"));
    }
    println!("{}", machine.title());
    let mut all = Vec::new();
    for spec in ALL {
        for real in spec.shapes.real {
            let sizes = machine.sizes(spec, DType::BF16, real);
            compare_op(&mut machine, spec, &sizes, &filter, &mut peers, &mut all)?;
        }
    }
    machine.measure()?;
    let results = report(&all)?;
    save("peers", &machine.title(), &results)?;
    println!("{results}");
    Ok(())
}

fn rounds() -> Result<usize> {
    let Ok(text) = std::env::var("CODELSI_BENCH_ROUNDS") else { return Ok(15) };
    let rounds = text.parse().ok().filter(|rounds| (3..=10_000).contains(rounds));
    rounds.ok_or_else(|| Error::new(format!("CODELSI_BENCH_ROUNDS={text}: a number from 3 to 10000")))
}

/// Starts the program that `CODELSI_PEER` names. PyTorch may be missing where none is named, which is said.
fn program() -> Result<Option<Peer>> {
    let named = std::env::var("CODELSI_PEER");
    let peer = match named.as_deref() {
        Ok("none") => return Ok(None),
        Ok(command) => Peer::start(command)?,
        Err(_) => match Peer::start(PYTORCH) {
            Ok(peer) => peer,
            Err(e) => {
                println!("without PyTorch: {e}");
                return Ok(None);
            }
        },
    };
    println!("peer: {}", peer.title);
    Ok(Some(peer))
}

/// Compares the passes of an op at `sizes` with every peer that has them.
fn compare_op(
    machine: &mut Machine,
    spec: &'static Spec,
    sizes: &[usize],
    filter: &str,
    peers: &mut Peers,
    all: &mut Vec<Comparison>,
) -> Result<()> {
    let case = || (spec.shapes.case)(DType::BF16, sizes);
    let passes =
        [Pass::Forward, Pass::Backward].into_iter().take(1 + spec.shapes.backward.is_some() as usize);
    let mut work = None;
    for pass in passes {
        let name = format!("{}/BF16 {} {pass:?}", spec.name, case().name);
        if !name.contains(filter) {
            continue;
        }
        let mut ours = |machine: &mut Machine| {
            let work = match &mut work {
                Some(work) => work,
                None => work.insert(TimedCase::new(&machine.device, case(), DType::BF16)?),
            };
            work.time(pass, &mut machine.stopwatch)
        };
        let rounds = peers.rounds;
        let mut compare = |peer: &str, theirs: &mut dyn FnMut() -> Result<Option<Duration>>| -> Result<()> {
            if let Some(pairs) = take_turns(rounds, &mut || ours(machine), theirs)? {
                all.push(Comparison { case: name.clone(), peer: peer.into(), pairs });
            }
            Ok(())
        };
        if let Some(program) = &mut peers.program {
            let peer = program.title.clone();
            compare(&peer, &mut || match program.time(&name)? {
                Answer::Time(time) => Ok(Some(time)),
                Answer::Absent(reason) => {
                    println!("{name}: {peer} has it not: {reason}");
                    Ok(None)
                }
            })?;
        }
        if peers.library && (spec.name, pass) == ("gemm", Pass::Forward) {
            compare_library(sizes, &mut compare)?;
        }
    }
    Ok(())
}

/// Times both in turns, the order changing from round to round; `None` when the peer does not have the case. The first
/// runs, which compile and allocate, do not count.
fn take_turns(
    rounds: usize,
    ours: &mut dyn FnMut() -> Result<Duration>,
    theirs: &mut dyn FnMut() -> Result<Option<Duration>>,
) -> Result<Option<Vec<(f64, f64)>>> {
    let mut pairs = Vec::new();
    for round in 0..=rounds {
        let before = if round % 2 == 0 { Some(ours()?) } else { None };
        let Some(peer) = theirs()? else { return Ok(None) };
        let own = match before {
            Some(own) => own,
            None => ours()?,
        };
        if round > 0 {
            pairs.push((own.as_secs_f64(), peer.as_secs_f64()));
        }
    }
    Ok(Some(pairs))
}

/// A comparison with a peer by its name, and its clock.
type Compare<'a> = dyn FnMut(&str, &mut dyn FnMut() -> Result<Option<Duration>>) -> Result<()> + 'a;

#[cfg(feature = "cublaslt")]
fn library(machine: &Machine) -> bool {
    let present = codelsi_benches::cublaslt::check_present();
    if let (true, Err(e)) = (machine.is_gpu(), &present) {
        println!("{e}");
    }
    machine.is_gpu() && present.is_ok()
}

/// Says once that this binary was built without cuBLASLt.
#[cfg(not(feature = "cublaslt"))]
fn library(machine: &Machine) -> bool {
    if machine.is_gpu() {
        println!("no comparison with cuBLASLt: built without the feature `cublaslt`");
    }
    false
}

#[cfg(feature = "cublaslt")]
fn compare_library(sizes: &[usize], compare: &mut Compare) -> Result<()> {
    let mut product = codelsi_benches::cublaslt::CublasLtProduct::new([sizes[0], sizes[1], sizes[2]])?;
    compare("cuBLASLt", &mut || product.time().map(Some))
}

#[cfg(not(feature = "cublaslt"))]
fn compare_library(_: &[usize], _: &mut Compare) -> Result<()> {
    Ok(())
}

/// Prints a line for each comparison and returns them by case and peer.
fn report(all: &[Comparison]) -> Result<Value> {
    let mut results = Map::new();
    for Comparison { case, peer, pairs } in all {
        let ratio = PairedRatio::new(pairs, all.len()).ok_or_else(|| Error::new("too few rounds"))?;
        let PairedRatio { ratio, low, high } = ratio;
        let median = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let (ours, theirs) = pairs.iter().copied().unzip();
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{case}");
        println!(
            "  {:>10.3} ms, {peer} {:.3} ms: {ratio:.3} of its speed [{low:.3}, {high:.3}]",
            1e3 * ours,
            1e3 * theirs
        );
        let row = json!({ "ratio": ratio, "low": low, "high": high, "ours_s": ours, "peer_s": theirs });
        let of_case = results.entry(case.clone()).or_insert_with(|| json!({}));
        of_case[peer] = row;
    }
    Ok(Value::Object(results))
}
