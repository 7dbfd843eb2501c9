//! Whole training runs of a tiny model: what they leave behind, and that their bits are a matter of the recipe alone.

mod common;

use codelsi_engine::Device;
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::Config;
use codelsi_train::metrics::{self, Metric};
use codelsi_train::options::Checkpointing;
use codelsi_train::{Event, Report, TrainOptions, train};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

fn run(options: &TrainOptions) -> Report {
    train(options, &Device::cpu(), &mut |_| ()).unwrap()
}

fn refused(options: &TrainOptions) -> String {
    train(options, &Device::cpu(), &mut |_| ()).unwrap_err().to_string()
}

/// What a run computed, its clock left out.
fn losses(options: &TrainOptions) -> Vec<(usize, f64, f64, f64, Option<f64>)> {
    let metrics = metrics::read(&options.out.join("metrics.jsonl")).unwrap();
    let row = |m: Metric| (m.step, m.loss, m.lr, m.grad_norm, m.validation_loss);
    metrics.into_iter().map(row).collect()
}

/// The bytes of what was trained.
fn weights(options: &TrainOptions) -> Vec<u8> {
    let name = if options.full { "model.safetensors" } else { "adapter_model.safetensors" };
    std::fs::read(options.out.join(name)).unwrap()
}

#[test]
fn a_run_lowers_the_loss_and_leaves_an_adapter_its_metrics_and_its_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let options = common::prepare(folder.path());
    let mut told = Vec::new();
    let report = train(&options, &Device::cpu(), &mut |event| {
        told.push(match event {
            Event::Start(overview) => overview.to_string(),
            Event::Before(loss) => format!("before {loss:.1}"),
            Event::Step(metric, planned) => format!("step {} of {planned}", metric.step),
            Event::Saved(path) => path.file_name().unwrap().to_string_lossy().into_owned(),
        })
    })
    .unwrap();
    assert!(report.steps >= 6 && report.tokens > 500, "{report:?}");
    let before = report.validation_before.unwrap();
    assert!(report.last_loss < 0.8 * report.first_loss, "{report:?}");
    assert!(report.validation_loss.unwrap() < 0.9 * before, "{report:?}");
    let config = Config::load(&options.model).unwrap();
    let adapter = Adapter::load(&options.out, &config).unwrap();
    assert_eq!(report.trainable, adapter.parameters());
    assert_eq!(report.total, config.parameters() + adapter.parameters());
    assert_eq!(losses(&options).len(), report.steps);
    let recipe = std::fs::read_to_string(options.out.join("recipe.json")).unwrap();
    assert!(recipe.contains("\"data_sha256\"") && recipe.contains("\"lr\": 0.02"), "{recipe}");

    for part in ["<s>say ", "⟦", "</s>⟧", "26 to train on, 4 to validate", "adapters", "moments", "peak"]
    {
        assert!(told[0].contains(part), "{part} in {}", told[0]);
    }
    assert!(told[1].starts_with("before "));
    assert_eq!(told[2], format!("step 1 of {}", report.steps));
    assert!(told.contains(&"step-00000003".to_string()), "{told:?}");
    assert_eq!(told.last().unwrap(), &format!("step-{:08}", report.steps));
}

#[test]
fn the_same_seed_gives_the_same_bits_for_any_number_of_threads() {
    for full in [false, true] {
        let mut results = Vec::new();
        for threads in [1, 3] {
            let folder = tempfile::tempdir().unwrap();
            let options = TrainOptions { full, ..common::prepare(folder.path()) };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&options));
            results.push((losses(&options), weights(&options)));
        }
        assert!(results[0] == results[1], "full: {full}");
        let folder = tempfile::tempdir().unwrap();
        let other = TrainOptions { full, seed: 43, ..common::prepare(folder.path()) };
        run(&other);
        assert!(losses(&other) != results[0].0, "the seed matters");
    }
}

#[test]
fn micro_batches_and_checkpointing_change_nothing_but_rounding() {
    let with = |micro_batch, checkpointing| {
        let folder = tempfile::tempdir().unwrap();
        let options = TrainOptions { micro_batch, checkpointing, ..common::prepare(folder.path()) };
        run(&options);
        losses(&options)
    };
    let one = with(1, Checkpointing::ALL);
    for other in [Checkpointing::NONE, Checkpointing::Layers(1), Checkpointing::Auto] {
        assert_eq!(with(1, other), one, "checkpointing replays the same numbers");
    }
    for (a, b) in one.iter().zip(with(4, Checkpointing::ALL)) {
        assert!((a.1 - b.1).abs() < 1e-3 && (a.3 - b.3).abs() < 1e-2 * a.3, "{a:?} {b:?}");
    }
}

/// Runs this test's own binary again as `child` with the folder, and kills it (-9) once it has done `steps`.
fn killed(folder: &Path, full: bool, steps: usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("CODELSI_TEST_FOLDER", folder)
        .env("CODELSI_TEST_FULL", full.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reached = lines.map_while(Result::ok).any(|line| line == format!("step {steps}"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(reached, "the child did not reach step {steps}");
}

/// Not a test by itself: the process that [`killed`] starts and kills.
#[test]
fn child() {
    let Ok(folder) = std::env::var("CODELSI_TEST_FOLDER") else {
        return;
    };
    let full = std::env::var("CODELSI_TEST_FULL").as_deref() == Ok("true");
    let options = TrainOptions { full, ..common::prepare(Path::new(&folder)) };
    let mut tell = |event: Event| {
        if let Event::Step(metric, _) = event {
            println!("step {}", metric.step);
            if metric.step == 5 {
                // The parent kills here, after two steps that no checkpoint knows.
                std::thread::sleep(std::time::Duration::from_secs(60));
            }
        }
    };
    train(&options, &Device::cpu(), &mut tell).unwrap();
}

#[test]
fn a_run_that_was_killed_resumes_to_the_same_bits() {
    for full in [false, true] {
        let [whole, cut] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let whole = TrainOptions { full, ..common::prepare(whole.path()) };
        let expected = run(&whole);
        killed(cut.path(), full, 5);
        let cut = TrainOptions { full, ..common::prepare(cut.path()) };
        assert_eq!(losses(&cut).len(), 5);
        assert!(refused(&cut).contains("holds a run already"));
        let cut = TrainOptions { resume: true, ..cut };
        let mut first = None;
        let resumed = train(&cut, &Device::cpu(), &mut |event| {
            if let Event::Step(metric, _) = event {
                first.get_or_insert(metric.step);
            }
        })
        .unwrap();
        assert_eq!(first, Some(4), "the checkpoint of step 3 is the last");
        assert_eq!(losses(&cut), losses(&whole));
        assert!(weights(&cut) == weights(&whole), "full: {full}");
        let bits = |r: &Report| (r.steps, r.tokens, r.first_loss, r.last_loss, r.validation_loss);
        assert_eq!(bits(&resumed), bits(&expected));
        // A finished run resumes to the same end, without a step.
        assert_eq!(bits(&run(&cut)), bits(&expected));
        let other = TrainOptions { lr: 1e-3, ..cut };
        assert!(refused(&other).contains("`lr` was 0.02 and is 0.001"));
    }
}

#[test]
fn full_training_leaves_a_model_that_loads_and_differs() {
    let folder = tempfile::tempdir().unwrap();
    let options = TrainOptions { full: true, ..common::prepare(folder.path()) };
    let report = run(&options);
    assert_eq!((report.trainable, report.total), (report.total, report.trainable));
    assert!(report.last_loss < 0.8 * report.first_loss, "{report:?}");
    Checkpoint::open(&options.out).unwrap();
    assert!(weights(&options) != std::fs::read(options.model.join("model.safetensors")).unwrap());
    assert!(options.out.join("tokenizer.json").exists());
}

#[test]
fn an_adapter_is_gone_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let first = common::prepare(folder.path());
    let before = run(&first);
    let second = TrainOptions {
        from: Some(first.out.clone()),
        out: folder.path().join("second"),
        max_steps: Some(2),
        rank: 99,
        ..first
    };
    let report = run(&second);
    assert_eq!((report.steps, report.validation_before), (2, before.validation_loss));
}

#[test]
fn bad_input_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let options = common::prepare(folder.path());
    let with = |change: &dyn Fn(&mut TrainOptions)| {
        let mut changed = options.clone();
        change(&mut changed);
        refused(&changed)
    };
    assert!(with(&|o| o.seq = 1000).contains("sequences have 2 to 64 tokens"));
    assert!(with(&|o| o.seq = 6).contains("no row leaves room"));
    assert!(with(&|o| o.lr = f64::NAN).contains("learning rate"));
    assert!(with(&|o| o.validation = 30).contains("30 validation rows"));
    assert!(with(&|o| o.data = folder.path().join("none.jsonl")).contains("none.jsonl"));
    let message = with(&|o| (o.lr, o.clip, o.warmup) = (1e30, None, 0));
    assert!(message.contains("step 2: the loss is"), "{message}");
    assert!(!message.contains('\n'));
}
