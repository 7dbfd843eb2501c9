//! Adapters attached to a model.

use codelsi_engine::{Ctx, DType, Device, Tensor};
use codelsi_model::adapter::{Adapter, AdapterConfig, Method};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::{LinearName, ModelConfig};
use codelsi_model::llama::{ForwardOptions, Llama, PackedBatch};
use codelsi_model::synthetic;
use codelsi_model::trainable::Trainable;
use std::collections::BTreeSet;
use std::path::Path;

/// Returns the logits of a short text.
fn logits(base: &Checkpoint, adapter: Option<&Adapter>, train: Trainable) -> Vec<f32> {
    let device = Device::cpu();
    let mut model = Llama::load(&device, base, DType::F32, Trainable::Nothing).unwrap();
    adapter.iter().for_each(|adapter| model.attach(adapter, train).unwrap());
    let (cx, batch) = (Ctx::inference(&device), PackedBatch::new(&device, &[&[1, 40, 7, 90]]).unwrap());
    let h = model.forward(&cx, &batch, ForwardOptions::default()).unwrap();
    model.logits(&cx, &model.final_norm(&cx, &h).unwrap()).unwrap().to_vec::<f32>().unwrap()
}

#[test]
fn row_norms_precomputed_for_serving_are_those_that_training_computes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/dora");
    let base = Checkpoint::open(folder.join("model")).unwrap();
    let adapter = Adapter::load(folder.join("adapter"), base.config()).unwrap();
    let [served, trained] =
        [Trainable::Nothing, Trainable::Adapter].map(|t| logits(&base, Some(&adapter), t));
    assert!(served == trained && served != logits(&base, None, Trainable::Nothing));
}

#[test]
fn a_new_adapter_of_any_method_leaves_the_outputs_unchanged_and_has_no_repeated_values() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = ModelConfig { layers: 2, ..synthetic::config("tiny").unwrap() };
    synthetic::write_random_model(folder.path(), &tiny, 1, &mut |_, _| {}).unwrap();
    let base = Checkpoint::open(folder.path()).unwrap();
    let run = |adapter: Option<&Adapter>| logits(&base, adapter, Trainable::Nothing);
    let expected = run(None);
    let lora = AdapterConfig::lora(4, 8.0, 0.0, &LinearName::ALL);
    for method in
        [Method::LowRank { rslora: false, dora: true }, Method::Mixture { experts: 3 }, Method::Bottleneck]
    {
        let adapter = Adapter::init(&base, &AdapterConfig { method, ..lora.clone() }, 1).unwrap();
        assert!(run(Some(&adapter)) == expected, "{method}");
        let values = |t: &Tensor| t.to_vec::<f32>().unwrap();
        let firsts =
            adapter.modules.values().flat_map(|p| [values(&p.a)[0], values(p.tensors().last().unwrap())[0]]);
        let firsts: Vec<f32> = firsts.filter(|&x| x != 0.0).collect();
        let distinct: BTreeSet<u32> = firsts.iter().map(|x| x.to_bits()).collect();
        assert_eq!(distinct.len(), firsts.len(), "{method}: {firsts:?}");
    }
    let none = AdapterConfig { method: Method::Mixture { experts: 0 }, ..lora };
    assert!(Adapter::init(&base, &none, 1).err().unwrap().to_string().contains("at least one expert"));
}

#[test]
fn a_mixture_of_trained_experts_begins_as_their_mean() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = ModelConfig { layers: 2, ..synthetic::config("tiny").unwrap() };
    synthetic::write_random_model(folder.path(), &tiny, 1, &mut |_, _| {}).unwrap();
    let base = Checkpoint::open(folder.path()).unwrap();
    let expert = |seed: u64| {
        let targets = [LinearName::Q, LinearName::Down];
        let mut expert = Adapter::init_lora(&tiny, 3, 6.0, 0.0, &targets, seed).unwrap();
        for module in expert.modules.values_mut() {
            let b = module.b.slice_mut::<f32>().unwrap();
            b.iter_mut().enumerate().for_each(|(i, x)| *x = ((i as u64 * 7 + seed) % 11) as f32 * 0.02 - 0.1);
        }
        expert
    };
    let (one, two) = (expert(1), expert(2));
    let mean = Adapter::weighted_sum(&[(&one, 0.5), (&two, 0.5)]).unwrap();
    let mixture = Adapter::mixture_of(&[one.clone(), two]).unwrap();
    let run = |adapter: &Adapter| logits(&base, Some(adapter), Trainable::Nothing);
    let largest_difference =
        |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    let (of_mixture, of_mean) = (run(&mixture), run(&mean));
    assert!(largest_difference(&of_mixture, &of_mean) < 1e-4);
    assert!(largest_difference(&of_mixture, &run(&one)) > 1e-2);
    let routers = mixture.modules.values().map(|module| module.extra.as_ref().unwrap().shape().elements());
    assert_eq!(mixture.trained_parameters(Trainable::Routers), routers.sum::<usize>());
    assert_eq!(mixture.trained_parameters(Trainable::Adapter), mixture.parameters());
}
