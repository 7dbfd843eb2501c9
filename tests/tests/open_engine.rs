//! The open engine: requests come and go, and each gets what it would get alone.

use codelsi_engine::{DType, Device};
use codelsi_model::adapter::Adapter;
use codelsi_model::config::LinearName;
use codelsi_model::generate::{
    AdapterSlots, AddError, Completion, Engine, EngineConfig, EngineOutputs, Event, FinishReason,
    GenerationRequest, RequestId, SamplingParams, SchedulerConfig, generate,
};
use codelsi_model::llama::Llama;
use codelsi_model::tokenizer::Tokenizer;
use codelsi_model::trainable::Trainable;
use codelsi_tests::{load_model, software_gpu, write_tiny_model};
use std::collections::BTreeMap;

struct Fixture {
    folder: tempfile::TempDir,
    tokenizer: Tokenizer,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_model(folder.path());
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    Fixture { folder, tokenizer }
}

const LIMITS: SchedulerConfig =
    SchedulerConfig { max_sequences: 6, prefill_chunk: 16, page_size: 4, cuda_graphs: true };

fn config(pages: usize) -> EngineConfig {
    EngineConfig::new(LIMITS, pages, 512)
}

/// The i-th of many requests, with prompts that begin alike, of 1 to 3 samples, drawn in every way.
fn request(i: usize) -> GenerationRequest {
    let prompt = (0..5 + i * 7 % 40).map(|t| 3 + (t * 37 + t / 20 * i) as u32 % 500).collect();
    let sampling = SamplingParams {
        temperature: [0.0, 1.0, 0.7, 1.3][i % 4],
        top_k: [0, 20][i % 2],
        repetition_penalty: [1.0, 1.2, 1.0][i % 3],
        seed: i as u64,
        ..SamplingParams::default()
    };
    let n = 1 + i % 3;
    GenerationRequest { n, sampling, stop_at_eos: false, ..GenerationRequest::greedy(prompt, 3 + i * 5 % 14) }
}

/// Collects events into completions; every sample is to end once.
#[derive(Default)]
struct Collected {
    samples: BTreeMap<(RequestId, usize), Completion>,
    finished: usize,
    cached: BTreeMap<RequestId, usize>,
}

impl Collected {
    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Prefilled { request, cached, .. } => {
                    assert!(self.cached.insert(request, cached).is_none(), "a prompt is announced once");
                }
                Event::Token { request, sample, token, text } => {
                    let completion = self.samples.entry((request, sample)).or_default();
                    completion.token_ids.push(token.id);
                    completion.logprobs.push(token.logprob);
                    completion.text += &text;
                }
                Event::Finished { request, sample, reason, text } => {
                    let completion = self.samples.entry((request, sample)).or_default();
                    completion.text += &text;
                    completion.finish_reason = reason;
                    self.finished += 1;
                }
            }
        }
    }

    fn of(&self, request: RequestId) -> Vec<Completion> {
        self.samples.range((request, 0)..=(request, usize::MAX)).map(|(_, made)| made.clone()).collect()
    }
}

fn step(engine: &mut Engine) -> Vec<Event> {
    engine.step().and_then(EngineOutputs::into_events).unwrap()
}

fn run(engine: &mut Engine) -> Collected {
    let mut collected = Collected::default();
    while engine.has_work() {
        collected.take(step(engine));
    }
    collected
}

fn alone(model: &Llama, tokenizer: &Tokenizer, request: &GenerationRequest) -> Vec<Completion> {
    let device = model.rank_layout().device();
    let request = GenerationRequest { adapter: None, ..request.clone() };
    generate(device, model, Some(tokenizer), &[request], LIMITS, &mut |_| {}).unwrap().remove(0)
}

#[test]
fn requests_that_come_and_go_get_what_each_gets_alone() {
    let fixture = fixture();
    let devices = [Some(Device::cpu()), software_gpu()];
    for device in devices.into_iter().flatten() {
        let count = if matches!(device, Device::Cpu(_)) { 24 } else { 9 };
        let model = load_model(fixture.folder.path(), &device, DType::BF16);
        // Few pages, so that sequences are preempted; then many.
        for (pages, prefix_cache) in [(18, true), (18, false), (200, true)] {
            let config = EngineConfig { prefix_cache, ..config(pages) };
            let mut engine = Engine::new(&device, &model, Some(&fixture.tokenizer), config).unwrap();
            let (mut collected, mut ids) = (Collected::default(), Vec::new());
            for i in 0..count {
                ids.push(engine.add(request(i)).unwrap());
                collected.take(step(&mut engine));
                if i % 5 == 3 {
                    engine.cancel(ids[i - 1]);
                    collected.samples.retain(|(id, _), _| *id != ids[i - 1]);
                }
            }
            while engine.has_work() {
                collected.take(step(&mut engine));
            }
            let stats = engine.stats();
            assert_eq!((stats.pages_used, stats.running, stats.waiting), (0, 0, 0));
            assert_eq!(stats.preemptions > 0, pages == 18, "{stats:?}");
            assert_eq!(stats.prefix_hit_tokens > 0, prefix_cache, "{stats:?}");
            for (i, &id) in ids.iter().enumerate() {
                if i % 5 != 2 {
                    assert_eq!(
                        collected.of(id),
                        alone(&model, &fixture.tokenizer, &request(i)),
                        "request {i}"
                    );
                }
            }
        }
    }
}

#[test]
fn twenty_samples_cost_one_prefill_and_a_shared_beginning_costs_nothing() {
    let (fixture, device) = (fixture(), Device::cpu());
    let model = load_model(fixture.folder.path(), &device, DType::F32);
    let scheduler = SchedulerConfig { max_sequences: 32, prefill_chunk: 512, ..LIMITS };
    let mut engine = Engine::new(&device, &model, None, EngineConfig::new(scheduler, 400, 512)).unwrap();
    let prompt: Vec<u32> = (0..301).map(|i| 3 + i % 490).collect();
    let sampling = SamplingParams { temperature: 1.0, ..SamplingParams::default() };
    let twenty = GenerationRequest {
        n: 20,
        sampling,
        stop_at_eos: false,
        ..GenerationRequest::greedy(prompt.clone(), 5)
    };
    engine.add(twenty).unwrap();
    assert_eq!(run(&mut engine).finished, 20);
    assert_eq!(engine.stats().prefill_tokens, 301);
    // 301 tokens are 75 full pages, and what is added is computed.
    let longer = [&prompt[..], &[7; 9]].concat();
    let id = engine.add(GenerationRequest::greedy(longer, 1)).unwrap();
    assert_eq!(run(&mut engine).cached[&id], 300);
    assert_eq!((engine.stats().prefill_tokens, engine.stats().prefix_hit_tokens), (301 + 10, 300));
    // A prompt without a completion fills the cache for the next.
    let warm: Vec<u32> = (0..40).map(|i| 100 + i).collect();
    engine.add(GenerationRequest::greedy(warm.clone(), 0)).unwrap();
    let warmed = run(&mut engine);
    let only = warmed.samples.values().next().unwrap();
    assert_eq!((only.token_ids.len(), only.finish_reason), (0, FinishReason::Length));
    let id = engine.add(GenerationRequest::greedy(warm, 2)).unwrap();
    assert_eq!(run(&mut engine).cached[&id], 36);
}

/// An adapter on some linears whose B is not zero.
fn adapter(model: &Llama, seed: u64, rank: usize, linears: &[LinearName]) -> Adapter {
    let mut adapter =
        Adapter::init_lora(model.config(), rank, 2.0 * rank as f32, 0.0, linears, seed).unwrap();
    for module in adapter.modules.values_mut() {
        let values: Vec<f32> = (0..module.b.shape().elements())
            .map(|i| ((i as u64 * 2_654_435_761 + seed * 97) % 1000) as f32 * 2e-4 - 0.1)
            .collect();
        module.b.write(&values).unwrap();
    }
    adapter
}

#[test]
fn rows_of_one_batch_use_their_own_adapters() {
    use LinearName::{Down, Gate, O, Q, Up, V};
    let fixture = fixture();
    for device in [Some(Device::cpu()), software_gpu()].into_iter().flatten() {
        for compute in [DType::F32, DType::BF16] {
            let load = || load_model(fixture.folder.path(), &device, compute);
            let model = load();
            let adapters = [
                adapter(&model, 1, 4, &[Q, V]),
                adapter(&model, 2, 2, &[O, Gate, Up]),
                adapter(&model, 3, 8, &[Q, Down]),
            ];
            let room = AdapterSlots { count: 2, rank: 8 };
            let config = EngineConfig { adapters: room, ..config(200) };
            let mut engine = Engine::new(&device, &model, Some(&fixture.tokenizer), config).unwrap();
            let first = engine.load_adapter(&adapters[0]).unwrap();
            let second = engine.load_adapter(&adapters[1]).unwrap();
            let full = engine.load_adapter(&adapters[2]).unwrap_err().to_string();
            assert!(full.contains("all 2 places"), "{full}");
            // Requests alike in all but their adapters, so that pages must not be shared among them.
            let of = |adapter| GenerationRequest { adapter, ..request(4) };
            let ids = [None, Some(first), Some(second), Some(first)].map(|id| engine.add(of(id)).unwrap());
            let made = run(&mut engine);
            let attached = |i: usize| {
                let mut model = load();
                model.attach(&adapters[i], Trainable::Nothing).unwrap();
                alone(&model, &fixture.tokenizer, &request(4))
            };
            let wanted =
                [alone(&model, &fixture.tokenizer, &request(4)), attached(0), attached(1), attached(0)];
            assert_ne!(wanted[0], wanted[1]);
            assert_ne!(wanted[1], wanted[2]);
            for (id, wanted) in ids.into_iter().zip(wanted) {
                assert_eq!(made.of(id), wanted, "{compute:?}");
            }
            // Another one takes the place of the first, and nothing of the first is left.
            let waiting = engine.add(of(Some(first))).unwrap();
            assert_eq!(engine.unload_adapter(first), [waiting]);
            let gone = engine.add(of(Some(first))).unwrap_err();
            assert!(matches!(&gone, AddError::Invalid(e) if e.to_string().contains("not loaded")), "{gone}");
            let third = engine.load_adapter(&adapters[2]).unwrap();
            let id = engine.add(of(Some(third))).unwrap();
            assert_eq!(run(&mut engine).of(id), attached(2), "{compute:?}");
        }
    }
}

#[test]
fn a_request_whose_logits_are_not_finite_fails_alone() {
    let fixture = fixture();
    for device in [Some(Device::cpu()), software_gpu()].into_iter().flatten() {
        for compute in [DType::F32, DType::BF16] {
            let model = load_model(fixture.folder.path(), &device, compute);
            let mut overflowing = adapter(&model, 1, 4, &[LinearName::Q, LinearName::K, LinearName::V]);
            for module in overflowing.modules.values_mut() {
                module.b.write(&vec![f32::MAX / 17.0; module.b.shape().elements()]).unwrap();
            }
            // Few pages, so that others use those that the failed ones left.
            let config = EngineConfig { adapters: AdapterSlots { count: 1, rank: 4 }, ..config(24) };
            let mut engine = Engine::new(&device, &model, Some(&fixture.tokenizer), config).unwrap();
            let overflowing = engine.load_adapter(&overflowing).unwrap();
            let of = |adapter, n| GenerationRequest { adapter, n, ..request(7) };
            let told = GenerationRequest { prompt_logprobs: true, max_tokens: 0, ..of(Some(overflowing), 1) };
            let wanted = alone(&model, &fixture.tokenizer, &of(None, 2));
            for _ in 0..2 {
                let failing =
                    [of(Some(overflowing), 2), told.clone()].map(|request| engine.add(request).unwrap());
                let good = [engine.add(of(None, 2)).unwrap(), engine.add(of(None, 2)).unwrap()];
                let (mut collected, mut failed) = (Collected::default(), Vec::new());
                while engine.has_work() {
                    let outputs = engine.step().unwrap();
                    failed.extend(outputs.failures.iter().map(|failure| failure.request));
                    assert!(outputs.failures.iter().all(|failure| failure.error.is_not_finite()));
                    collected.take(outputs.events);
                }
                failed.sort_unstable();
                assert_eq!(failed, failing, "each once, {compute:?}");
                for id in good {
                    assert_eq!(collected.of(id), wanted, "{compute:?}");
                }
                assert_eq!(engine.stats().pages_used, 0);
            }
        }
    }
}

#[test]
fn what_cannot_be_one_of_several_is_refused_in_one_line() {
    let (fixture, device) = (fixture(), Device::cpu());
    let model = load_model(fixture.folder.path(), &device, DType::F32);
    let config = EngineConfig { adapters: AdapterSlots { count: 1, rank: 4 }, ..config(50) };
    let mut engine = Engine::new(&device, &model, None, config).unwrap();
    let mut refuse = |adapter: &Adapter| engine.load_adapter(adapter).unwrap_err().to_string();
    assert!(refuse(&adapter(&model, 1, 8, &[LinearName::Q])).contains("rank 8 exceeds the 4"));
    let mut saved = adapter(&model, 1, 2, &[LinearName::Q]);
    saved
        .saved
        .insert("lm_head.weight".into(), device.zeros(codelsi_engine::Label::Adapters, [1], DType::F32));
    assert!(refuse(&saved).contains("merge it"));
    let mut attached = load_model(fixture.folder.path(), &device, DType::F32);
    attached.attach(&adapter(&model, 1, 2, &[LinearName::Q]), Trainable::Nothing).unwrap();
    let error = Engine::new(&device, &attached, None, config).err().unwrap().to_string();
    assert!(error.contains("attached"), "{error}");
}

#[test]
fn recorded_steps_stay_recorded_while_requests_and_adapters_come_and_go() {
    let Some(device) = software_gpu() else { return };
    let fixture = fixture();
    let model = load_model(fixture.folder.path(), &device, DType::BF16);
    let Device::Cuda(cuda) = &device else { unreachable!("a software GPU") };
    let replays = || cuda.emulator().unwrap().replay_count();
    let config = EngineConfig { adapters: AdapterSlots { count: 2, rank: 4 }, ..config(200) };
    let mut engine = Engine::new(&device, &model, None, config).unwrap();
    let adapters = [1, 2].map(|seed| adapter(&model, seed, 4, &[LinearName::Q, LinearName::Up]));
    let first = engine.load_adapter(&adapters[0]).unwrap();
    let one = |adapter| GenerationRequest {
        adapter,
        stop_at_eos: false,
        ..GenerationRequest::greedy(vec![5, 6, 7], 6)
    };
    engine.add(one(Some(first))).unwrap();
    run(&mut engine);
    let before = replays();
    // Another adapter on the same linears, another request: every decode step is a replay of those recorded before.
    let second = engine.load_adapter(&adapters[1]).unwrap();
    for adapter in [Some(second), None, Some(first)] {
        engine.add(one(adapter)).unwrap();
        run(&mut engine);
    }
    assert_eq!(replays() - before, 3 * 5);
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let (fixture, device) = (fixture(), Device::cpu());
    let model = load_model(fixture.folder.path(), &device, DType::F32);
    let mut engine = Engine::new(&device, &model, None, config(200)).unwrap();
    let prompt: Vec<u32> = (0..40).map(|i| 3 + i * 13 % 400).collect();
    let plain = GenerationRequest { stop_at_eos: false, ..GenerationRequest::greedy(prompt.clone(), 6) };
    let plain = engine.add(plain).unwrap();
    let told = GenerationRequest {
        top_logprobs: 3,
        prompt_logprobs: true,
        n: 2,
        stop_at_eos: false,
        ..GenerationRequest::greedy(prompt.clone(), 6)
    };
    let told = engine.add(told).unwrap();
    let (mut collected, mut of_prompt, mut tops) = (Collected::default(), Vec::new(), Vec::new());
    while engine.has_work() {
        let events = step(&mut engine);
        for event in &events {
            match event {
                Event::Prefilled { request, prompt, .. } if *request == told => of_prompt.clone_from(prompt),
                Event::Token { request, sample: 1, token, .. } if *request == told => {
                    tops.push(token.clone())
                }
                _ => {}
            }
        }
        collected.take(events);
    }
    assert_eq!(collected.of(plain)[0], collected.of(told)[0], "what is told changes nothing");
    for token in &tops {
        assert_eq!(token.top.len(), 3);
        assert_eq!(token.top[0].0, token.id, "greedy");
        assert!((token.top[0].1 - token.logprob).abs() < 1e-5, "{token:?}");
        assert!(token.top.is_sorted_by(|a, b| a.1 >= b.1));
    }
    // The prompt's, token by token, are those of sampling it: each is the first token of a completion of those before it.
    assert!(of_prompt.len() == 40 && of_prompt[0].is_none());
    for (i, token) in of_prompt.iter().enumerate().skip(1).step_by(7) {
        let token = token.as_ref().unwrap();
        let next = GenerationRequest::greedy(prompt[..i].to_vec(), 1);
        let made = generate(&device, &model, None, &[next], LIMITS, &mut |_| {}).unwrap();
        assert_eq!(token.id, prompt[i]);
        assert_eq!(token.top[0].0, made[0][0].token_ids[0], "token {i}");
        assert!((token.top[0].1 - made[0][0].logprobs[0]).abs() < 1e-5, "token {i}");
        assert!(token.logprob <= token.top[0].1);
    }
}

#[test]
fn too_many_requests_are_refused_and_a_cancelled_one_makes_room() {
    let (fixture, device) = (fixture(), Device::cpu());
    let model = load_model(fixture.folder.path(), &device, DType::F32);
    let config = EngineConfig { max_requests: 3, max_requests_per_client: 2, ..config(50) };
    let mut engine = Engine::new(&device, &model, None, config).unwrap();
    let of = |client| GenerationRequest { client, ..GenerationRequest::greedy(vec![1, 2, 3], 8) };
    let first = engine.add(of(1)).unwrap();
    engine.add(of(1)).unwrap();
    let refused = |result| matches!(result, Err(AddError::Overloaded(_)));
    assert!(refused(engine.add(of(1))), "a third one of a client");
    engine.add(of(2)).unwrap();
    assert!(refused(engine.add(of(3))), "a fourth one of all");
    step(&mut engine);
    engine.cancel(first);
    engine.add(of(3)).unwrap();
    let long = GenerationRequest::greedy(vec![1; 210], 8);
    assert!(matches!(engine.add(long), Err(AddError::Invalid(e)) if e.to_string().contains("55 pages")));
    run(&mut engine);
    engine.add(of(1)).unwrap();
}
