//! Adapters attached to a model.

use codelsi_engine::{Ctx, DType, Device, Tensor};
use codelsi_model::adapter::{Adapter, Method, Settings};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::{Config, Linear};
use codelsi_model::llama::{Batch, ForwardOptions, Llama};
use codelsi_model::synthetic;
use codelsi_model::trainable::Train;
use std::collections::BTreeSet;
use std::path::Path;

/// Returns the logits of a short text.
fn logits(base: &Checkpoint, adapter: Option<&Adapter>, train: Train) -> Vec<f32> {
    let device = Device::cpu();
    let mut model = Llama::load(&device, base, DType::F32, Train::Nothing).unwrap();
    adapter.iter().for_each(|adapter| model.attach(adapter, train).unwrap());
    let (cx, batch) = (Ctx::inference(&device), Batch::new(&device, &[&[1, 40, 7, 90]]).unwrap());
    let h = model.forward(&cx, &batch, ForwardOptions::default()).unwrap();
    model.logits(&cx, &model.normed(&cx, &h).unwrap()).unwrap().to_vec::<f32>().unwrap()
}

#[test]
fn row_norms_precomputed_for_serving_are_those_that_training_computes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/dora");
    let base = Checkpoint::open(folder.join("model")).unwrap();
    let adapter = Adapter::load(folder.join("adapter"), base.config()).unwrap();
    let [served, trained] = [Train::Nothing, Train::Adapters].map(|t| logits(&base, Some(&adapter), t));
    assert!(served == trained && served != logits(&base, None, Train::Nothing));
}

#[test]
fn a_new_adapter_of_any_method_leaves_the_outputs_unchanged_and_has_no_repeated_values() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = Config { layers: 2, ..synthetic::config("tiny").unwrap() };
    synthetic::make(folder.path(), &tiny, 1, &mut |_, _| {}).unwrap();
    let base = Checkpoint::open(folder.path()).unwrap();
    let run = |adapter: Option<&Adapter>| logits(&base, adapter, Train::Nothing);
    let expected = run(None);
    let lora = Settings::lora(4, 8.0, 0.0, &Linear::ALL);
    for method in
        [Method::LowRank { rslora: false, dora: true }, Method::Mixture { experts: 3 }, Method::Bottleneck]
    {
        let adapter = Adapter::begun(&base, &Settings { method, ..lora.clone() }, 1).unwrap();
        assert!(run(Some(&adapter)) == expected, "{method}");
        let values = |t: &Tensor| t.to_vec::<f32>().unwrap();
        let firsts =
            adapter.pairs.values().flat_map(|p| [values(&p.a)[0], values(p.tensors().last().unwrap())[0]]);
        let firsts: Vec<f32> = firsts.filter(|&x| x != 0.0).collect();
        let distinct: BTreeSet<u32> = firsts.iter().map(|x| x.to_bits()).collect();
        assert_eq!(distinct.len(), firsts.len(), "{method}: {firsts:?}");
    }
    let none = Settings { method: Method::Mixture { experts: 0 }, ..lora };
    assert!(Adapter::begun(&base, &none, 1).err().unwrap().to_string().contains("at least one expert"));
}
