//! A small run of the demo's pipeline gives the same report on the CPU and on the software GPU. The test binary is its
//! own sandbox child, so it has a `main`.

use codelsi_engine::cuda::Nvrtc;
use codelsi_eval::judge;
use codelsi_eval::report::Report;
use codelsi_experiment::judging::JudgeOptions;
use codelsi_experiment::output::Output;
use codelsi_experiment::pipeline;
use codelsi_experiment::placement::Placement;
use codelsi_experiment::recipe::Recipe;
use codelsi_experiment::sources::Sources;
use codelsi_experiment::stages::Experiment;
use codelsi_launch::DeviceChoice;
use codelsi_testing::or_skip;
use std::path::Path;

/// Returns the demo's recipe with two steps per stage and greedy answers to the first problems, of which the base
/// solves one.
fn recipe() -> Recipe {
    let mut recipe = Recipe::demo(42);
    for stage in [&mut recipe.general, &mut recipe.specialized] {
        (stage.seq, stage.batch, stage.micro_batch, stage.max_steps) = (64, 2, 1, Some(2));
    }
    recipe.general.validation = 4;
    recipe.specialized.replay_rows = 0;
    let protocol = &mut recipe.protocol;
    (protocol.n, protocol.temperature, protocol.max_tokens, protocol.limit) = (1, 0.0, 32, Some(3));
    recipe
}

/// Runs the pipeline on `device` into `folder`.
fn run(device: DeviceChoice, folder: &Path) -> Report {
    let recipe = recipe();
    let sources = Sources::demo(&folder.join("sources"), 42).expect("sources");
    let placement = Placement { device, ..Placement::default() };
    let judge = JudgeOptions { judge: recipe.judge, ..JudgeOptions::default() };
    let experiment = Experiment { recipe, sources, folder: folder.into(), placement, judge };
    pipeline::run(&experiment, &Output::detect()).expect("a report")
}

/// Asserts that every part of the report is there.
fn assert_complete(report: &Report, folder: &Path) {
    let names: Vec<&str> = report.models.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["base", "general", "specialized"]);
    for row in &report.models[1..] {
        assert!(
            row.steps == Some(2) && row.peak_bytes > Some(0) && row.last_loss.is_some_and(f64::is_finite)
        );
    }
    assert!(report.models[1].validation_loss.is_some());
    assert_eq!(report.curves.iter().map(|curve| curve.training.len()).collect::<Vec<_>>(), [2, 2]);
    for set in &report.sets {
        for result in &set.results {
            assert_eq!((result.problems, result.samples), (3, 3), "{} of {}", result.name, set.name);
        }
    }
    let page = std::fs::read_to_string(folder.join("report.html")).expect("report.html");
    for part in ["<svg", "general problems", "private-API problems", "specialized"] {
        assert!(page.contains(part), "the report has no {part}");
    }
    let json = std::fs::read(folder.join("report.json")).expect("report.json");
    serde_json::from_slice::<serde_json::Value>(&json).expect("JSON");
}

/// Asserts that losses are close and greedy answers equal: the devices differ only in the order of sums.
fn assert_same(cpu: &Report, gpu: &Report) {
    let losses = |report: &Report| -> Vec<f64> {
        let row_losses = |row: &codelsi_eval::report::TrainingSummary| {
            let (before, after) = row.validation_loss.unzip();
            [row.first_loss, row.last_loss, before, after].into_iter().flatten()
        };
        report.models.iter().flat_map(row_losses).collect()
    };
    let (on_cpu, on_gpu) = (losses(cpu), losses(gpu));
    assert_eq!((on_cpu.len(), on_gpu.len()), (8, 8));
    for (a, b) in on_cpu.iter().zip(&on_gpu) {
        assert!((a - b).abs() <= 0.01 * a, "losses {on_cpu:?} on the CPU, {on_gpu:?} on the software GPU");
    }
    assert_eq!((cpu.sets.len(), gpu.sets.len()), (2, 2));
    for (a, b) in cpu.sets.iter().zip(&gpu.sets) {
        for (a, b) in a.results.iter().zip(&b.results) {
            let names = |r: &codelsi_eval::evaluate::ModelResult| {
                r.per_problem.iter().map(|p| (p.name.clone(), p.correct)).collect::<Vec<_>>()
            };
            assert_eq!((names(a), &a.statuses), (names(b), &b.statuses), "{}", a.name);
        }
    }
    assert!(cpu.sets[0].results[0].pass_at_1 > 0.0, "the base solves one of the first problems");
}

fn main() {
    judge::child_entry();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let on = |name: &str, device| {
        let started = std::time::Instant::now();
        let folder = folder.path().join(name);
        let report = run(device, &folder);
        assert_complete(&report, &folder);
        println!("{name}: {:.1} s", started.elapsed().as_secs_f64());
        report
    };
    let cpu = on("cpu", DeviceChoice::Cpu);
    if or_skip(Nvrtc::get()).is_some() {
        assert_same(&cpu, &on("emulated", DeviceChoice::Emulated("sm_80")));
    }
}
