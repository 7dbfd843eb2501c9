//! A completion depends on its prompt, sampling and seed alone.

use codelsi_engine::{DType, Device};
use codelsi_model::generate::{
    Completion, FinishReason, GenerationRequest, SamplingParams, SchedulerConfig, generate,
};
use codelsi_model::llama::Llama;
use codelsi_model::tokenizer::Tokenizer;
use codelsi_tests::{load_model, write_tiny_model};
use std::sync::OnceLock;

struct Fixture {
    folder: tempfile::TempDir,
    tokenizer: Tokenizer,
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        write_tiny_model(folder.path());
        let tokenizer = Tokenizer::load(folder.path()).unwrap();
        Fixture { folder, tokenizer }
    })
}

fn model(device: &Device, compute: DType) -> Llama {
    load_model(fixture().folder.path(), device, compute)
}

fn complete(compute: DType, requests: &[GenerationRequest], limits: SchedulerConfig) -> Vec<Vec<Completion>> {
    let device = Device::cpu();
    let model = model(&device, compute);
    generate(&device, &model, Some(&fixture().tokenizer), requests, limits, &mut |_| {}).unwrap()
}

/// Prompts of 1 to 90 tokens with every way of sampling.
fn requests() -> Vec<GenerationRequest> {
    let sampling = |seed, temperature, top_k, top_p, min_p, repetition_penalty| SamplingParams {
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        seed,
        ..SamplingParams::default()
    };
    let ways = [
        sampling(1, 0.0, 0, 1.0, 0.0, 1.0),
        sampling(2, 1.0, 0, 1.0, 0.0, 1.0),
        sampling(3, 0.7, 20, 0.9, 0.0, 1.1),
        SamplingParams {
            frequency_penalty: 0.5,
            presence_penalty: 0.3,
            ..sampling(4, 1.3, 0, 1.0, 0.05, 1.0)
        },
        sampling(5, 0.2, 0, 0.95, 0.0, 1.0),
    ];
    let lengths = [1, 7, 16, 33, 90];
    ways.into_iter()
        .zip(lengths)
        .map(|(sampling, length)| GenerationRequest {
            n: 3,
            sampling,
            stop_at_eos: false,
            ..GenerationRequest::greedy((0..length).map(|i| 3 + (i * 37 + length) % 500).collect(), 20)
        })
        .collect()
}

/// A prompt of one token: the penalties must not reach it, and must end the repetition of a greedy completion.
#[test]
fn penalties_are_of_the_completion() {
    let complete_with = |sampling: SamplingParams, prompt: Vec<u32>| {
        let request =
            GenerationRequest { sampling, stop_at_eos: false, ..GenerationRequest::greedy(prompt, 30) };
        complete(DType::F32, &[request], SchedulerConfig::default())[0][0].token_ids.clone()
    };
    let distinct = |ids: &[u32]| ids.iter().collect::<std::collections::HashSet<_>>().len();
    let plain = complete_with(SamplingParams::default(), vec![7]);
    let penalized = SamplingParams { presence_penalty: 1e30, ..SamplingParams::default() };
    let never_twice = complete_with(penalized.clone(), vec![7]);
    assert_eq!(distinct(&never_twice), 30, "{never_twice:?}");
    // The first token is generated after nothing: the prompt's own tokens are free.
    assert_eq!(never_twice[0], plain[0]);
    let prompted = complete_with(penalized, vec![7, plain[0], 7]);
    assert_eq!(prompted[0], complete_with(SamplingParams::default(), vec![7, plain[0], 7])[0]);
    let often = SamplingParams { frequency_penalty: -1e30, ..SamplingParams::default() };
    assert_eq!(distinct(&complete_with(often, vec![7])), 1);
}

#[test]
fn batch_chunks_and_page_size_change_no_bit() {
    for compute in [DType::F32, DType::BF16] {
        let batched = complete(compute, &requests(), SchedulerConfig::default());
        for (batch, prefill, page_size) in [(1, 1, 1), (4, 5, 3), (3, 64, 16), (64, 512, 256)] {
            let limits = SchedulerConfig {
                max_sequences: batch,
                prefill_chunk: prefill,
                page_size,
                ..SchedulerConfig::default()
            };
            assert_eq!(batched, complete(compute, &requests(), limits), "{compute:?} {limits:?}");
        }
        for (i, request) in requests().into_iter().enumerate() {
            let alone = complete(compute, &[request], SchedulerConfig::default());
            assert_eq!(batched[i], alone[0], "{compute:?} request {i} alone");
        }
    }
}

#[test]
fn more_completions_than_a_batch_run_part_by_part_and_all_arrive() {
    let device = Device::cpu();
    let model = model(&device, DType::F32);
    let request = GenerationRequest { n: 300, max_tokens: 4, ..requests().swap_remove(1) };
    let peak = |n: usize, batch: usize| {
        let limits = SchedulerConfig { max_sequences: batch, ..SchedulerConfig::default() };
        device.ledger().reset_peak();
        let request = GenerationRequest { n, ..request.clone() };
        let made = generate(&device, &model, None, &[request], limits, &mut |_| {}).unwrap().swap_remove(0);
        (made, device.ledger().usage().peak)
    };
    let (made, bytes) = peak(300, 16);
    assert_eq!(made.len(), 300);
    assert_eq!(made[..40], peak(40, 64).0, "the number of a completion decides its text");
    assert!(bytes <= peak(64, 16).1 && bytes < peak(300, 300).1, "{bytes} bytes");
}

#[test]
fn samples_differ_by_number_and_seed_and_greedy_ones_do_not() {
    let made = complete(DType::F32, &requests(), SchedulerConfig::default());
    assert_eq!(made[0][0].token_ids, made[0][1].token_ids);
    assert_ne!(made[1][0].token_ids, made[1][1].token_ids);
    let mut other = requests().swap_remove(1);
    other.sampling.seed += 1;
    assert_ne!(complete(DType::F32, &[other], SchedulerConfig::default())[0], made[1]);
}

#[test]
fn a_stop_string_ends_the_text_before_it_wherever_tokens_break() {
    let free = complete(DType::F32, &requests()[1..2], SchedulerConfig::default());
    let text = &free[0][0].text;
    let (at, _) = text.char_indices().nth(text.chars().count() / 2).unwrap();
    let stop: String = text[at..].chars().take(2).collect();
    let request =
        GenerationRequest { stop: vec!["never there".into(), stop.clone()], ..requests().swap_remove(1) };
    let stopped = complete(DType::F32, &[request], SchedulerConfig::default());
    assert_eq!(stopped[0][0].text, text[..text.find(&stop).unwrap()]);
    assert_eq!(stopped[0][0].finish_reason, FinishReason::Stop);
}

#[test]
fn requests_that_do_not_fit_are_refused_in_one_line() {
    let device = Device::cpu();
    let model = model(&device, DType::F32);
    let refuse = |request: GenerationRequest| {
        generate(&device, &model, None, &[request], SchedulerConfig::default(), &mut |_| {})
            .unwrap_err()
            .to_string()
    };
    assert!(refuse(GenerationRequest::greedy(vec![], 3)).contains("no token"));
    assert!(refuse(GenerationRequest::greedy(vec![1, 9999], 3)).contains("9999 is outside the vocabulary"));
    assert!(refuse(GenerationRequest::greedy(vec![1; 500], 300)).contains("512 positions"));
    assert!(refuse(GenerationRequest::greedy(vec![1], 0)).contains("--max-tokens"));
}
