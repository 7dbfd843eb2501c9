//! Training and serving run the same kernels: the log-probabilities of a sequence are the same bits however its pages
//! came to be filled, and those of the training forward within the reference's own tolerance.

use codelsi_engine::{Ctx, DType, Device};
use codelsi_kernels::check::value;
use codelsi_kernels::xent::Targets;
use codelsi_model::generate::{Completion, GenerationRequest, SchedulerConfig, generate};
use codelsi_model::llama::{ForwardOptions, Llama, PackedBatch};
use codelsi_parity::ReferenceCase;
use codelsi_tests::{golden_case, load_adapted, load_model, software_gpu};
use serde_json::Value;

/// Tokens of the sequence, the first included.
const LENGTH: usize = 40;

/// The greedy continuation of `prompt` to [`LENGTH`] tokens, `prefill_chunk` tokens of the prompt at a time.
fn serve(device: &Device, model: &Llama, prompt: &[u32], prefill: usize, page_size: usize) -> Completion {
    let request = GenerationRequest {
        stop_at_eos: false,
        ..GenerationRequest::greedy(prompt.to_vec(), LENGTH - prompt.len())
    };
    let limits = SchedulerConfig { prefill_chunk: prefill, page_size, ..SchedulerConfig::default() };
    generate(device, model, None, &[request], limits, &mut |_| {}).unwrap().remove(0).remove(0)
}

/// log p of each token after the first, by the forward that training runs.
fn train(device: &Device, model: &Llama, tokens: &[u32]) -> Vec<f64> {
    let batch = PackedBatch::new(device, &[tokens]).unwrap();
    let next: Vec<i32> = tokens[1..].iter().map(|&id| id as i32).chain([-100]).collect();
    let targets = Targets::new(device, &next).unwrap();
    let cx = Ctx::inference(device);
    let (_, logprobs) = model.loss(&cx, &batch, &targets, 1.0, ForwardOptions::default()).unwrap();
    let mut logprobs = value(&logprobs).unwrap().data;
    logprobs.pop();
    logprobs
}

/// Largest relative error of the whole and of one log-probability: what the reference allows.
fn allowed(reference: &Value, compute: DType, logprobs: &str) -> [f64; 2] {
    let (table, factor) = match compute {
        DType::BF16 => ("observed_bfloat16_error_of_transformers", 2.0),
        _ => ("tolerance_float32", 1.0),
    };
    ["rel_l2", "max_abs"].map(|key| factor * reference[table][logprobs][key].as_f64().unwrap())
}

/// The base, and an adapter of every method.
fn check_all(device: &Device, compute: DType) {
    check(
        device,
        compute,
        ("tiny", "logprobs"),
        &load_model(&golden_case("tiny").join("model"), device, compute),
    );
    for case in ["tiny", "dora", "mixture", "bottleneck"] {
        check(device, compute, (case, "lora.logprobs"), &load_adapted(case, device, compute));
    }
}

fn check(device: &Device, compute: DType, (case, logprobs): (&str, &str), model: &Llama) {
    let reference = ReferenceCase::open(&golden_case(case), compute).unwrap();
    let whole = serve(device, model, &[1], 512, 16);
    let tokens: Vec<u32> = std::iter::once(1).chain(whole.token_ids.iter().copied()).collect();

    // A longer prompt fills its pages whole, in chunks that cross pages, and token by token.
    for (prompt, prefill, page_size) in [(30, 512, 16), (30, 7, 16), (30, 1, 16), (17, 4, 32)] {
        let other = serve(device, model, &tokens[..prompt], prefill, page_size);
        let place = format!("{} {compute:?} {case}: prompt of {prompt}, {prefill} at a time", device.name());
        assert_eq!(other.token_ids, tokens[prompt..], "{place}");
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&other.logprobs), bits(&whole.logprobs[prompt - 1..]), "{place}");
    }

    let trained = train(device, model, &tokens);
    let differences: Vec<f64> =
        trained.iter().zip(&whole.logprobs).map(|(t, &s)| (t - f64::from(s)).abs()).collect();
    let rms = |x: &[f64]| (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64).sqrt();
    // The limit is a share of the log-probabilities it was seen on; those of what a model wrote itself are nearer to 0.
    let scale = rms(&reference.floats(logprobs).unwrap());
    let found = [rms(&differences) / scale, differences.iter().copied().fold(0.0, f64::max)];
    let allowed = allowed(&reference.json, compute, logprobs);
    let place = format!("{} {compute:?} {case}", device.name());
    assert!(found[0] <= allowed[0] && found[1] <= allowed[1], "{place}: off by {found:?} of {allowed:?}");
    println!("{place}: training and serving differ by {found:?} of {allowed:?}");
}

#[test]
fn training_and_serving_agree_on_the_cpu() {
    for compute in [DType::F32, DType::BF16] {
        check_all(&Device::cpu(), compute);
    }
}

#[test]
fn training_and_serving_agree_on_the_software_gpu() {
    let Some(device) = software_gpu() else { return };
    for compute in [DType::F32, DType::BF16] {
        check_all(&device, compute);
    }
}
