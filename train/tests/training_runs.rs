//! Complete training runs of a tiny model: their output files, and that the result depends on the recipe alone.

mod common;

use approx::abs_diff_eq;
use codelsi_engine::Device;
use codelsi_model::adapter::{Adapter, Method};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::{LinearName, ModelConfig};
use codelsi_train::metrics::{self, StepMetrics};
use codelsi_train::options::ActivationCheckpointing;
use codelsi_train::{TrainEvent, TrainOptions, TrainReport, train};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

fn run(options: &TrainOptions) -> TrainReport {
    train(options, &Device::cpu(), &mut |_| ()).unwrap()
}

fn refused(options: &TrainOptions) -> String {
    train(options, &Device::cpu(), &mut |_| ()).unwrap_err().to_string()
}

/// The metrics of a run without its timings.
fn losses(options: &TrainOptions) -> Vec<(usize, f64, f64, f64, Option<f64>)> {
    let metrics = metrics::read(&options.out.join("metrics.jsonl")).unwrap();
    let row = |m: StepMetrics| (m.step, m.loss, m.lr, m.grad_norm, m.validation_loss);
    metrics.into_iter().map(row).collect()
}

/// The bytes of the trained adapter or model.
fn weights(options: &TrainOptions) -> Vec<u8> {
    let name = if options.full { "model.safetensors" } else { "adapter_model.safetensors" };
    std::fs::read(options.out.join(name)).unwrap()
}

#[test]
fn a_run_lowers_the_loss_and_leaves_an_adapter_its_metrics_and_its_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let options = common::prepare(folder.path());
    let mut events = Vec::new();
    let report = train(&options, &Device::cpu(), &mut |event| {
        events.push(match event {
            TrainEvent::Start(summary) => summary.to_string(),
            TrainEvent::InitialValidation(loss) => format!("before {loss:.1}"),
            TrainEvent::Step(metric, planned) => format!("step {} of {planned}", metric.step),
            TrainEvent::Collapse(warning) => warning.to_string(),
            TrainEvent::CheckpointSaved(path) => path.file_name().unwrap().to_string_lossy().into_owned(),
        })
    })
    .unwrap();
    assert!(report.steps >= 6 && report.tokens > 500, "{report:?}");
    let before = report.validation_before.unwrap();
    assert!(report.last_loss < 0.8 * report.first_loss, "{report:?}");
    assert!(report.validation_loss.unwrap() < 0.9 * before, "{report:?}");
    let config = ModelConfig::load(&options.model).unwrap();
    let adapter = Adapter::load(&options.out, &config).unwrap();
    assert_eq!(report.trainable, adapter.parameters());
    assert_eq!(report.total, config.parameters() + adapter.parameters());
    assert_eq!(losses(&options).len(), report.steps);
    let recipe = std::fs::read_to_string(options.out.join("recipe.json")).unwrap();
    assert!(recipe.contains("\"data_sha256\"") && recipe.contains("\"lr\": 0.02"), "{recipe}");

    for part in ["<s>say ", "⟦", "</s>⟧", "26 to train on, 4 to validate", "adapters", "moments", "peak"]
    {
        assert!(events[0].contains(part), "{part} in {}", events[0]);
    }
    assert!(events[1].starts_with("before "));
    assert_eq!(events[2], format!("step 1 of {}", report.steps));
    assert!(events.contains(&"step-00000003".to_string()), "{events:?}");
    assert_eq!(events.last().unwrap(), &format!("step-{:08}", report.steps));
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
    let one = with(1, ActivationCheckpointing::ALL);
    for other in
        [ActivationCheckpointing::NONE, ActivationCheckpointing::Layers(1), ActivationCheckpointing::Auto]
    {
        assert_eq!(with(1, other), one, "checkpointing replays the same numbers");
    }
    for (a, b) in one.iter().zip(with(4, ActivationCheckpointing::ALL)) {
        let losses_agree = abs_diff_eq!(a.1, b.1, epsilon = 1e-3);
        assert!(losses_agree && abs_diff_eq!(a.3, b.3, epsilon = 1e-2 * a.3), "{a:?} {b:?}");
    }
}

/// Runs this test binary again as `child` with the folder, and kills it (SIGKILL) after `steps` steps.
fn run_and_kill(folder: &Path, full: bool, steps: usize) {
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

/// The process that [`run_and_kill`] starts and kills; alone, it passes at once.
#[test]
fn child() {
    let Ok(folder) = std::env::var("CODELSI_TEST_FOLDER") else {
        return;
    };
    let full = std::env::var("CODELSI_TEST_FULL").as_deref() == Ok("true");
    let options = TrainOptions { full, ..common::prepare(Path::new(&folder)) };
    let mut tell = |event: TrainEvent| {
        if let TrainEvent::Step(metric, _) = event {
            println!("step {}", metric.step);
            if metric.step == 5 {
                // The parent kills the process here, two steps after the last checkpoint.
                std::thread::sleep(std::time::Duration::from_secs(60));
            }
        }
    };
    train(&options, &Device::cpu(), &mut tell).unwrap();
}

#[test]
fn a_run_that_was_killed_resumes_to_the_same_bits() {
    for full in [false, true] {
        let [first, second] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let uninterrupted = TrainOptions { full, ..common::prepare(first.path()) };
        let expected = run(&uninterrupted);
        run_and_kill(second.path(), full, 5);
        let interrupted = TrainOptions { full, ..common::prepare(second.path()) };
        assert_eq!(losses(&interrupted).len(), 5);
        assert!(refused(&interrupted).contains("holds a run already"));
        let interrupted = TrainOptions { resume: true, ..interrupted };
        let mut first = None;
        let resumed = train(&interrupted, &Device::cpu(), &mut |event| {
            if let TrainEvent::Step(metric, _) = event {
                first.get_or_insert(metric.step);
            }
        })
        .unwrap();
        assert_eq!(first, Some(4), "the checkpoint of step 3 is the last");
        assert_eq!(losses(&interrupted), losses(&uninterrupted));
        assert!(weights(&interrupted) == weights(&uninterrupted), "full: {full}");
        let bits = |r: &TrainReport| (r.steps, r.tokens, r.first_loss, r.last_loss, r.validation_loss);
        assert_eq!(bits(&resumed), bits(&expected));
        // A completed run resumes to the same result without a step.
        assert_eq!(bits(&run(&interrupted)), bits(&expected));
        let other = TrainOptions { lr: 1e-3, ..interrupted };
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
fn training_continues_from_an_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let first = common::prepare(folder.path());
    let before = run(&first);
    let second = TrainOptions {
        from: Some(first.out.clone()),
        out: folder.path().join("second"),
        max_steps: Some(2),
        ..first
    };
    let report = run(&second);
    assert_eq!((report.steps, report.validation_before), (2, before.validation_loss));
}

#[test]
fn an_adapter_does_not_go_on_with_other_settings() {
    let folder = tempfile::tempdir().unwrap();
    let first = TrainOptions { max_steps: Some(1), ..common::prepare(folder.path()) };
    run(&first);
    let second = TrainOptions { from: Some(first.out.clone()), out: folder.path().join("second"), ..first };
    let dora = Method::LowRank { rslora: false, dora: true };
    for (changed, expected) in [
        (TrainOptions { rank: 8, ..second.clone() }, "holds --rank 4, which does not go on as --rank 8"),
        (TrainOptions { alpha: 9.0, ..second.clone() }, "holds --alpha 8, which does not go on as --alpha 9"),
        (
            TrainOptions { targets: vec![LinearName::Q], ..second.clone() },
            "does not go on as --targets q_proj",
        ),
        (TrainOptions { method: dora, ..second }, "holds LoRA, which does not go on as DoRA"),
    ] {
        let message = refused(&changed);
        assert!(message.contains(expected) && message.contains("/out: "), "{message}");
        assert!(!changed.out.join("recipe.json").exists(), "nothing was trained");
    }
}

#[test]
fn an_update_that_is_not_finite_is_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let options = TrainOptions {
        lr: 10.0,
        weight_decay: 3e38,
        max_steps: Some(1),
        validation: 0,
        ..common::prepare(folder.path())
    };
    let message = refused(&options);
    assert!(message.starts_with("step 1: the update left no finite numbers: `model.layers.0."), "{message}");
    assert!(message.contains("lora_A.weight` holds ") && !message.contains('\n'), "{message}");
    assert!(!options.out.join("adapter_model.safetensors").exists());
    assert!(!options.out.join("checkpoints").exists());
}

#[test]
fn a_damaged_base_is_named_by_its_tensor() {
    for validation in [4, 0] {
        let folder = tempfile::tempdir().unwrap();
        let options = TrainOptions { validation, ..common::prepare(folder.path()) };
        let weights = options.model.join("model.safetensors");
        let mut bytes = std::fs::read(&weights).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        std::fs::write(&weights, bytes).unwrap();
        let message = refused(&options);
        assert!(message.contains("lm_head.weight[39, 15] is NaN; the base model is damaged"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

/// The rows of each step's sequences, from `order.jsonl`.
fn order(options: &TrainOptions) -> Vec<Vec<Vec<usize>>> {
    let text = std::fs::read_to_string(options.out.join("order.jsonl")).unwrap();
    let steps = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let steps = steps.enumerate().map(|(i, mut line)| {
        assert_eq!(line["step"], i + 1);
        serde_json::from_value(line["sequences"].take()).unwrap()
    });
    steps.collect()
}

#[test]
fn the_order_of_rows_is_written_and_can_be_the_file_s() {
    let folder = tempfile::tempdir().unwrap();
    let prepared = TrainOptions { validation: 0, epochs: 2, ..common::prepare(folder.path()) };
    let options = TrainOptions { shuffle: false, packing: false, ..prepared.clone() };
    let report = run(&options);
    let steps = order(&options);
    assert_eq!((steps.len(), steps.len()), (report.steps, 16));
    let epoch: Vec<usize> = steps[..8].concat().concat();
    assert_eq!(epoch, (0..30).collect::<Vec<_>>());
    assert_eq!((&steps[0], &steps[8]), (&vec![vec![0], vec![1], vec![2], vec![3]], &steps[0]));
    assert_eq!(steps[7], [[28], [29]], "an epoch's last step is smaller");

    let shuffled = TrainOptions { out: folder.path().join("shuffled"), ..prepared };
    let report = run(&shuffled);
    let steps = order(&shuffled);
    assert_eq!(steps.len(), report.steps);
    let half = steps.len() / 2;
    for epoch in [&steps[..half], &steps[half..]] {
        let mut rows = epoch.concat().concat();
        assert!(!rows.is_sorted());
        rows.sort();
        assert_eq!(rows, (0..30).collect::<Vec<_>>());
    }
    assert!(steps.iter().flatten().any(|sequence| sequence.len() > 1), "rows are packed");
    let before = std::fs::read(shuffled.out.join("order.jsonl")).unwrap();
    run(&TrainOptions { resume: true, ..shuffled.clone() });
    assert!(std::fs::read(shuffled.out.join("order.jsonl")).unwrap() == before);
    let message = refused(&TrainOptions { resume: true, shuffle: false, ..shuffled });
    assert!(message.contains("`shuffle` was true and is false now"), "{message}");
}

#[test]
fn rows_that_are_left_out_are_counted_by_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = common::prepare(folder.path());
    let asked = |text: &str| serde_json::json!({"from": "human", "value": text});
    let answered = |text: &str| serde_json::json!({"from": "gpt", "value": text});
    let rows = [
        serde_json::json!({"instruction": "a", "input": "b", "output": "c", "repo": "d"}),
        serde_json::json!({"instruction": "a", "output": " "}),
        serde_json::json!({"instruction": "a", "output": "c".repeat(90)}),
        serde_json::json!({"instruction": "a".repeat(90), "output": "c"}),
        serde_json::json!({"conversations": [asked("a"), answered("b"), asked("c"), answered("d")]}),
        serde_json::json!({"conversations": [asked("a")], "id": 7}),
    ];
    codelsi_model::jsonl::write(&options.data[0], &rows).unwrap();
    (options.validation, options.replay, options.replay_rows) = (0, Some(options.data[0].clone()), 9);
    let mut summary = String::new();
    let report = train(&options, &Device::cpu(), &mut |event| {
        if let TrainEvent::Start(start) = event {
            summary = start.to_string();
        }
    })
    .unwrap();
    // The file counts twice: as data and as replay.
    let rows = &report.rows;
    assert_eq!((rows.training, rows.left_out.truncated, rows.left_out.too_long), (4, 2, 2));
    assert_eq!((rows.left_out.without_answer, rows.left_out.without_form), (4, 2));
    for part in [
        "4 to train on, 0 to validate; 2 cut to 48 tokens, 2 dropped as too long, 4 dropped as without an answer",
        "2 dropped as conversations that the template cannot write",
        "keys that are not used (rows with them): `id` (2), `repo` (2)",
        "note: --replay has 4 rows, fewer than the 9 of --replay-rows",
    ] {
        assert!(summary.contains(part), "{part} in {summary}");
    }
    assert_eq!(order(&options)[0].concat().len(), 4);
    assert!(order(&options)[0].concat().contains(&8), "the replayed rows are counted on");
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
    for (option, changes) in [
        ("--lr is NaN", &(|o: &mut TrainOptions| o.lr = f64::NAN) as &dyn Fn(&mut TrainOptions)),
        ("--lr is 1e300", &|o| o.lr = 1e300),
        ("--lr is 1e-300", &|o| o.lr = 1e-300),
        ("--alpha is 0", &|o| o.alpha = 0.0),
        ("--alpha is -1", &|o| o.alpha = -1.0),
        ("--alpha is inf", &|o| o.alpha = f32::INFINITY),
        ("--clip is NaN", &|o| o.clip = Some(f64::NAN)),
        ("--clip is -1", &|o| o.clip = Some(-1.0)),
        ("--clip is inf", &|o| o.clip = Some(f64::INFINITY)),
        ("--weight-decay is NaN", &|o| o.weight_decay = f32::NAN),
        ("--weight-decay is -0.1", &|o| o.weight_decay = -0.1),
        ("--dropout is 1", &|o| o.dropout = 1.0),
        ("--dropout is NaN", &|o| o.dropout = f32::NAN),
        ("--rank is 0", &|o| o.rank = 0),
        ("--epochs is 18446744073709551615", &|o| o.epochs = usize::MAX),
        ("--batch is 18446744073709551615", &|o| o.batch = usize::MAX),
        ("--micro-batch is 0", &|o| o.micro_batch = 0),
        ("--max-steps is 0", &|o| o.max_steps = Some(0)),
        ("--warmup is 18446744073709551615", &|o| o.warmup = usize::MAX),
    ] {
        let message = with(changes);
        assert!(message.contains(option) && !message.contains('\n'), "{option}: {message}");
    }
    assert!(with(&|o| o.validation = 30).contains("30 validation rows"));
    assert!(with(&|o| o.data = vec![folder.path().join("none.jsonl")]).contains("none.jsonl"));
    let message = with(&|o| (o.lr, o.clip, o.warmup) = (1e30, None, 0));
    assert!(message.contains("step 2: the loss is"), "{message}");
    assert!(!message.contains('\n'));
}
