//! Models that ranks share, held to float64 references and to one rank: cut by heads, or in parts that are gathered.

#[path = "../../train/tests/on_ranks/mod.rs"]
mod on_ranks;

use codelsi_engine::{DType, Device, Result, Threads};
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_parity::{TensorComparison, check};
use codelsi_testing::shared;
use codelsi_tests::{golden_case, software_gpu};
use on_ranks::on_ranks_over;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs `f` on every rank of a layout.
fn on_ranks<T: Send>(
    (world, layout): (usize, Layout),
    device: impl Fn() -> Device + Sync,
    f: impl Fn(RankLayout) -> Result<T> + Sync,
) -> Vec<Result<T>> {
    let group = Threads::group_within(world, Duration::from_secs(60));
    on_ranks_over(group, |host| host, device, |rank| f(RankLayout::new(rank, layout)))
}

/// Returns the project's own cases and the numbers of ranks that can share them.
fn own() -> Vec<(PathBuf, Vec<usize>)> {
    vec![(golden_case("tiny"), vec![2]), (golden_case("six"), vec![2, 3]), (golden_case("llama3"), vec![2])]
}

/// Returns these cases and the shared ones.
fn all() -> Vec<(PathBuf, Vec<usize>)> {
    let given = ["mha_f32", "gqa_bf16_sharded", "tied_f32"];
    let given = given.iter().filter_map(|case| shared(format!("reference/{case}")));
    own().into_iter().chain(given.map(|case| (case, vec![2]))).collect()
}

/// Root mean square and maximum of the errors of a group's tensors, as shares of their limits.
fn errors(rows: &[TensorComparison], group: &str) -> [f64; 2] {
    let shares = || rows.iter().filter(|r| r.tensor.starts_with(group)).map(|r| r.error / r.limit);
    let mean = shares().map(|e| e * e).sum::<f64>() / shares().count() as f64;
    [mean.sqrt(), shares().fold(0.0, f64::max)]
}

/// Every rank's error is at most twice that of one rank alone, and in f32 within the stated tolerance; tokens are exact.
fn near_the_truth(cases: Vec<(PathBuf, Vec<usize>)>, device: impl Fn() -> Device + Sync, compute: DType) {
    for (folder, worlds) in cases {
        let alone = check(&folder, &device(), compute).unwrap();
        for world in worlds {
            let name = format!("{} on {world} ranks", folder.display());
            for rows in on_ranks((world, Layout::Tensor), &device, |split| check(&folder, split, compute)) {
                let rows = rows.unwrap();
                // What is cut and not compared: q, k and v of layer 0.
                assert_eq!(rows.len() + 3, alone.len(), "{name}");
                let departs: Vec<_> = rows.iter().filter(|r| compute == DType::F32 && !r.ok()).collect();
                assert!(departs.is_empty(), "{name}: {departs:#?}");
                for group in ["hidden", "logits", "lora.logits", "grad.", "step"] {
                    let (one, many) = (errors(&alone, group), errors(&rows, group));
                    let fine = one.iter().zip(&many).all(|(one, many)| *many <= 2.0 * one);
                    assert!(fine, "{name}, {group}: {many:?} against {one:?}");
                }
            }
        }
    }
}

#[test]
fn f32_is_as_near_the_truth_as_one_rank() {
    near_the_truth(all(), Device::cpu, DType::F32);
}

#[test]
fn bf16_is_as_near_the_truth_as_one_rank() {
    near_the_truth(all(), Device::cpu, DType::BF16);
}

#[test]
fn software_gpus_are_as_near_as_one() {
    if software_gpu().is_none() {
        return;
    }
    near_the_truth(own(), || software_gpu().unwrap(), DType::F32);
    near_the_truth(own(), || software_gpu().unwrap(), DType::BF16);
}

/// Gathered matrices are the whole ones: nothing that a case states is another number.
#[test]
fn shards_compute_what_one_rank_does() {
    // Full training, which has the gradients of biases, has no frozen weights to shard.
    let errors = |rows: Vec<TensorComparison>| {
        let rows = rows.into_iter().filter(|row| !row.tensor.starts_with("grad.model."));
        rows.map(|row| (row.tensor, row.error)).collect::<Vec<_>>()
    };
    for (case, world, compute) in
        [("tiny", 2, DType::BF16), ("tiny", 3, DType::F32), ("six", 4, DType::F32), ("qwen2", 2, DType::BF16)]
    {
        let alone = errors(check(&golden_case(case), &Device::cpu(), compute).unwrap());
        for rows in
            on_ranks((world, Layout::Shard), Device::cpu, |split| check(&golden_case(case), split, compute))
        {
            assert_eq!(errors(rows.unwrap()), alone, "{case} on {world} ranks");
        }
    }
}

fn refusal(folder: &Path, world: usize) -> String {
    let refused = on_ranks((world, Layout::Tensor), Device::cpu, |split| check(folder, split, DType::F32));
    refused.into_iter().next().unwrap().unwrap_err().to_string()
}

#[test]
fn heads_that_do_not_divide_are_an_error() {
    assert!(
        refusal(&golden_case("tiny"), 3).contains("4 attention heads to 3 ranks"),
        "{}",
        refusal(&golden_case("tiny"), 3)
    );
    assert!(refusal(&golden_case("tiny"), 4).contains("2 key and value heads to 4 ranks"));
}
