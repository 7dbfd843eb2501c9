//! The engine against reference outputs: every tensor of the golden cases, and a trained model's golden text.

use approx::assert_abs_diff_eq;
use codelsi_engine::{Ctx, DType, Device};
use codelsi_kernels::check::value;
use codelsi_model::generate::{GenerationRequest, SchedulerConfig, generate};
use codelsi_model::llama::{ForwardOptions, PackedBatch};
use codelsi_model::tokenizer::Tokenizer;
use codelsi_parity::check;
use codelsi_testing::shared;
use codelsi_tests::{golden_case, load_model, software_gpu};
use serde_json::Value;

fn parity(device: &Device, compute: DType) {
    let given = ["mha_f32", "gqa_bf16_sharded", "tied_f32", "hd128_bf16"];
    let given = given.iter().filter_map(|case| shared(format!("reference/{case}")));
    let own =
        ["tiny", "six", "llama3", "qwen2", "mistral", "patterns", "saved", "dora", "mixture", "bottleneck"];
    for folder in own.map(golden_case).into_iter().chain(given) {
        let rows = check(&folder, device, compute).unwrap();
        let departs: Vec<_> = rows.iter().filter(|r| !r.ok()).collect();
        assert!(rows.len() > 40, "{} compared {} tensors only", folder.display(), rows.len());
        assert!(departs.is_empty(), "{}: {departs:#?}", folder.display());
    }
}

#[test]
fn f32_is_within_every_stated_tolerance() {
    parity(&Device::cpu(), DType::F32);
}

#[test]
fn bf16_is_within_twice_the_observed_error() {
    parity(&Device::cpu(), DType::BF16);
}

#[test]
fn the_software_gpu_is_as_near_in_both() {
    let Some(device) = software_gpu() else { return };
    parity(&device, DType::F32);
    parity(&device, DType::BF16);
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

#[test]
fn stories260k_gives_its_golden_logits_and_text() {
    let Some(folder) = shared("data/stories260k") else { return };
    let golden: Value = serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let device = Device::cpu();
    let model = load_model(&folder, &device, DType::F32);
    let tokenizer = Tokenizer::load(&folder).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let text = case["prompt"].as_str().unwrap();
        let prompt = tokenizer.encode(text, true).unwrap();
        let ids: Vec<f64> = prompt.iter().map(|&id| id as f64).collect();
        assert_eq!(ids, numbers(&case["prompt_ids"]), "{text:?}");

        let cx = Ctx::inference(&device);
        let batch = PackedBatch::new(&device, &[&prompt]).unwrap();
        let h = model.forward(&cx, &batch, ForwardOptions::default()).unwrap();
        let logits = model.logits(&cx, &model.final_norm(&cx, &h).unwrap()).unwrap();
        let logits = value(&logits).unwrap();
        let truth = numbers(&case["last_logits"]);
        assert_abs_diff_eq!(logits.row(prompt.len() - 1), &truth[..], epsilon = 1e-4);

        let greedy = numbers(&case["greedy_ids"]);
        let request = GenerationRequest::greedy(prompt, greedy.len());
        let made =
            generate(&device, &model, Some(&tokenizer), &[request], SchedulerConfig::default(), &mut |_| {})
                .unwrap();
        let ids: Vec<f64> = made[0][0].token_ids.iter().map(|&id| id as f64).collect();
        assert_eq!(ids, greedy, "{text:?}");
        let whole = format!("{text}{}", made[0][0].text);
        assert_eq!(whole.trim_start(), case["greedy_text"].as_str().unwrap().trim_start());
    }
}
