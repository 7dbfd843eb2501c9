//! Training the embedding and the head in full beside an adapter: the result depends on the recipe alone, and layouts
//! that cannot do it are refused.

mod common;
mod on_ranks;

use codelsi_engine::{DType, Device, Result, Tensor};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::ModelConfig;
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_model::tensor_writer::write_json;
use codelsi_train::{TrainEvent, TrainOptions, metrics, train};
use on_ranks::on_ranks;
use std::fs;
use std::path::Path;

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn options(folder: &Path, modules: &[&str]) -> TrainOptions {
    let modules_to_save = modules.iter().map(|name| name.to_string()).collect();
    TrainOptions { modules_to_save, epochs: 2, save_every: 2, ..common::prepare(folder) }
}

fn run(world: usize, layout: Layout, options: &TrainOptions) -> Result<Vec<u8>> {
    let reports = on_ranks(world, |rank| train(options, RankLayout::new(rank, layout), &mut |_| ()));
    reports.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(fs::read(options.out.join("adapter_model.safetensors")).unwrap())
}

fn config(options: &TrainOptions) -> ModelConfig {
    Checkpoint::open(&options.model).unwrap().config().clone()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.to_vec::<f32>().unwrap()
}

#[test]
fn the_result_depends_on_the_recipe_alone() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), &["embed_tokens", "lm_head"]);
    let with = |name: &str| TrainOptions { out: folder.path().join(name), ..options.clone() };
    let report = train(&with("one"), &Device::cpu(), &mut |_| ()).unwrap();
    let learned = report.validation_before.zip(report.validation_loss);
    assert!(learned.is_some_and(|(before, after)| after < 0.9 * before), "{report:?}");

    let (base, adapter) = (
        Checkpoint::open(&options.model).unwrap(),
        Adapter::load(with("one").out, &config(&options)).unwrap(),
    );
    assert_eq!(adapter.config.modules_to_save, ["embed_tokens", "lm_head"]);
    assert_eq!((adapter.saved.len(), adapter.parameters()), (2, report.trainable));
    for (name, t) in &adapter.saved {
        assert!(values(t) != values(&base.copy_f32(&Device::cpu(), name).unwrap()), "{name} was not trained");
    }
    let expected = fs::read(with("one").out.join("adapter_model.safetensors")).unwrap();
    for ranks in [2, 3] {
        let bytes = run(ranks, Layout::Replicate, &with(&ranks.to_string())).unwrap();
        assert!(bytes == expected, "{ranks} ranks");
    }
    // A run that ends after step 3 goes on from step 2.
    let broken = with("broken");
    let ended = on_ranks(2, |rank| {
        let comm = rank.comm.clone();
        train(&broken, RankLayout::new(rank, Layout::Replicate), &mut |event| match event {
            TrainEvent::Step(metric, _) if metric.step == 3 && comm.rank() == 1 => comm.abort("was killed"),
            _ => {}
        })
    });
    assert!(ended.iter().any(Result::is_err));
    let resumed = run(1, Layout::Replicate, &TrainOptions { resume: true, ..broken }).unwrap();
    assert!(resumed == expected, "a resumed run");

    let shard = run(2, Layout::Shard, &with("shard")).unwrap_err().to_string();
    assert!(shard.contains("--layout shard keeps `lm_head.weight` in shards"), "{shard}");
    run(2, Layout::Tensor, &with("tensor")).unwrap();
    let losses = |name: &str| -> Vec<f64> {
        metrics::read(&with(name).out.join("metrics.jsonl")).unwrap().into_iter().map(|m| m.loss).collect()
    };
    for (one, tensor) in losses("one").into_iter().zip(losses("tensor")) {
        assert!((one / tensor - 1.0).abs() < 1e-5, "{one} {tensor}");
    }
}

/// The head of a tied model that is not trained stays what the embedding was, as in PEFT.
#[test]
fn what_is_trained_of_a_tied_model_is_no_longer_tied() {
    for modules in [&["embed_tokens"][..], &["lm_head"], &["embed_tokens", "lm_head"]] {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path(), modules);
        let tied = ModelConfig { tied_embeddings: true, ..config(&options) };
        write_json(options.model.join("config.json"), &tied.to_json(DType::F32)).unwrap();
        let report = train(&options, &Device::cpu(), &mut |_| ()).unwrap();
        assert!(report.last_loss < report.first_loss, "{report:?}");
        let adapter = Adapter::load(&options.out, &tied).unwrap();
        let names: Vec<&str> = adapter.saved.keys().map(String::as_str).collect();
        let expected: Vec<&str> = [(HEAD, "lm_head"), (EMBEDDING, "embed_tokens")]
            .into_iter()
            .filter(|(_, module)| modules.contains(module))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, expected);
        let saved: Vec<Vec<f32>> = adapter.saved.values().map(values).collect();
        assert!(saved.len() < 2 || saved[0] != saved[1], "two copies learn apart");
    }
}

#[test]
fn a_run_goes_on_with_what_its_adapter_holds() {
    let folder = tempfile::tempdir().unwrap();
    let first = TrainOptions { max_steps: Some(2), ..options(folder.path(), &["lm_head"]) };
    train(&first, &Device::cpu(), &mut |_| ()).unwrap();
    let from = Some(first.out.clone());
    let second = TrainOptions { from, out: folder.path().join("second"), ..first.clone() };
    train(&second, &Device::cpu(), &mut |_| ()).unwrap();
    let head =
        |options: &TrainOptions| values(&Adapter::load(&options.out, &config(options)).unwrap().saved[HEAD]);
    assert!(head(&first) != head(&second));
    let refused =
        |options: TrainOptions| train(&options, &Device::cpu(), &mut |_| ()).unwrap_err().to_string();
    let other =
        TrainOptions { modules_to_save: Vec::new(), out: folder.path().join("third"), ..second.clone() };
    let message = refused(other);
    assert!(message.contains("holds --also lm_head, which does not go on as --also none"), "{message}");
    let replay = first.data.first().cloned();
    let distilled =
        TrainOptions { replay, replay_rows: 4, distill: 0.5, out: folder.path().join("fourth"), ..second };
    let message = refused(distilled);
    assert!(message.contains("distillation needs a head that is frozen"), "{message}");
    let full = TrainOptions { full: true, out: folder.path().join("fifth"), ..first };
    assert!(refused(full).contains("leave out --also"));
}
