//! Adapters attached to a model.

use codelsi_engine::{Ctx, DType, Device, Tensor};
use codelsi_model::adapter::{Adapter, AdapterConfig, Method};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::{LinearName, ModelConfig};
use codelsi_model::llama::{ForwardOptions, Llama, PackedBatch};
use codelsi_model::merge::merge;
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

/// Weights that stand in the places of the base's are those that are used, until another adapter is attached.
#[test]
fn weights_of_an_adapter_take_the_places_of_the_base_s() {
    for tied in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let config = ModelConfig { layers: 2, tied_embeddings: tied, ..synthetic::config("tiny").unwrap() };
        synthetic::write_random_model(folder.path(), &config, 1, &mut |_, _| {}).unwrap();
        let base = Checkpoint::open(folder.path()).unwrap();
        let saving = |names: &[&str]| {
            let modules_to_save = names.iter().map(|name| name.to_string()).collect();
            let settings =
                AdapterConfig { modules_to_save, ..AdapterConfig::lora(4, 8.0, 0.0, &[LinearName::Q]) };
            Adapter::init(&base, &settings, 1).unwrap()
        };
        let mut both = saving(&["embed_tokens", "lm_head"]);
        let run = |adapter: &Adapter, train| logits(&base, Some(adapter), train);
        let plain = logits(&base, None, Trainable::Nothing);
        for train in [Trainable::Nothing, Trainable::Adapter] {
            assert!(run(&both, train) == plain, "a fresh adapter changes nothing");
        }
        both.saved
            .get_mut("lm_head.weight")
            .unwrap()
            .slice_mut::<f32>()
            .unwrap()
            .iter_mut()
            .for_each(|x| *x *= 2.0);
        let doubled: Vec<f32> = plain.iter().map(|x| 2.0 * x).collect();
        assert!(run(&both, Trainable::Nothing) == doubled, "tied {tied}: the head alone is doubled");

        let mut model = Llama::load(&Device::cpu(), &base, DType::F32, Trainable::Nothing).unwrap();
        model.attach(&both, Trainable::Nothing).unwrap();
        model.attach(&saving(&[]), Trainable::Nothing).unwrap();
        let (cx, batch) =
            (Ctx::inference(&Device::cpu()), PackedBatch::new(&Device::cpu(), &[&[1, 40, 7, 90]]).unwrap());
        let hidden = model.hidden(&cx, &batch, ForwardOptions::default()).unwrap();
        assert!(model.logits(&cx, &hidden).unwrap().to_vec::<f32>().unwrap() == plain, "the base's are back");

        let norms = saving(&["norm"]);
        assert_eq!(norms.saved.len(), 5, "as in PEFT the end of a name is enough: {:?}", norms.saved.keys());
        assert!(run(&norms, Trainable::Nothing) == plain);
        let merged = folder.path().join("merged");
        merge(&base, &both, &merged, &mut |_, _| {}, &mut |_| Ok(())).unwrap();
        let merged = Checkpoint::open(&merged).unwrap();
        assert!(logits(&merged, None, Trainable::Nothing) == doubled, "doubling and B = 0 round nothing");
        assert!(!merged.config().tied_embeddings, "a head of its own is written");
    }
}
