//! Decode steps recorded as graphs and replayed: the same bits, and one copy each way.

use codelsi_engine::{DType, Device};
use codelsi_model::generate::{Completion, GenerationRequest, SamplingParams, SchedulerConfig, generate};
use codelsi_model::llama::Llama;
use codelsi_tests::{load_adapted, load_model, software_gpu, write_tiny_model};

/// Counts of the work that the software GPU has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Done {
    replays: usize,
    uploads: usize,
    downloads: usize,
}

fn done(device: &Device) -> Done {
    let Device::Cuda(cuda) = device else { unreachable!("a software GPU") };
    let gpu = cuda.emulator().unwrap();
    let (uploads, downloads) = gpu.copy_counts();
    Done { replays: gpu.replay_count(), uploads, downloads }
}

fn run(
    device: &Device,
    model: &Llama,
    requests: &[GenerationRequest],
    limits: SchedulerConfig,
) -> Vec<Vec<Completion>> {
    generate(device, model, None, requests, limits, &mut |_| {}).unwrap()
}

/// The bits of every log-probability, beside the tokens.
fn bits(made: &[Vec<Completion>]) -> Vec<(Vec<u32>, Vec<u32>)> {
    let of = |c: &Completion| (c.token_ids.clone(), c.logprobs.iter().map(|x| x.to_bits()).collect());
    made.iter().flatten().map(of).collect()
}

/// Requests of several samples and lengths, one for each way of drawing, so that batches grow and shrink and prompts
/// are shared: 9 completions.
fn requests() -> Vec<GenerationRequest> {
    let ways = [
        SamplingParams::default(),
        SamplingParams { temperature: 1.0, seed: 2, ..SamplingParams::default() },
        SamplingParams {
            temperature: 0.7,
            top_k: 20,
            top_p: 0.9,
            repetition_penalty: 1.3,
            seed: 3,
            ..SamplingParams::default()
        },
        SamplingParams { temperature: 1.3, min_p: 0.05, seed: 4, ..SamplingParams::default() },
    ];
    let shapes = [(5, 2, 12), (9, 3, 7), (1, 1, 15), (14, 3, 10)];
    let request =
        |(sampling, (prompt, n, max_tokens)): (SamplingParams, (u32, usize, usize))| GenerationRequest {
            n,
            sampling,
            stop_at_eos: false,
            ..GenerationRequest::greedy(
                (0..prompt).map(|i| 3 + (i * 37 + prompt) % 500).collect(),
                max_tokens,
            )
        };
    ways.into_iter().zip(shapes).map(request).collect()
}

/// A software GPU with a model on it.
fn fixture(compute: DType) -> Option<(Device, Llama)> {
    let device = software_gpu()?;
    let folder = tempfile::tempdir().unwrap();
    write_tiny_model(folder.path());
    let model = load_model(folder.path(), &device, compute);
    Some((device, model))
}

#[test]
fn a_replayed_step_has_the_bits_of_a_plain_one() {
    for compute in [DType::BF16, DType::F32] {
        let Some((device, model)) = fixture(compute) else { return };
        let plain = SchedulerConfig { max_sequences: 6, prefill_chunk: 8, page_size: 4, cuda_graphs: false };
        let before = done(&device);
        let wanted = bits(&run(&device, &model, &requests(), plain));
        assert_eq!(done(&device).replays, before.replays, "graphs were not wanted");
        // Pages of one token are never shared in part; those of 4 and 16 are copied.
        for (batch, page_size) in [(6, 4), (6, 16), (3, 1)] {
            let limits =
                SchedulerConfig { max_sequences: batch, prefill_chunk: 8, page_size, cuda_graphs: true };
            let before = done(&device);
            let made = bits(&run(&device, &model, &requests(), limits));
            let replays = done(&device).replays - before.replays;
            assert!(replays >= 5, "{replays} replays of {limits:?}");
            assert_eq!(made, wanted, "{compute:?} {limits:?}");
        }
    }
}

/// Prompts and tokens that the golden cases' models know.
#[test]
fn a_replayed_step_has_the_bits_of_a_plain_one_with_every_method() {
    for case in ["tiny", "dora", "mixture", "bottleneck"] {
        let Some(device) = software_gpu() else { return };
        let model = load_adapted(case, &device, DType::BF16);
        let vocab = model.config().vocab as u32;
        let mut requests = requests();
        requests.iter_mut().flat_map(|r| &mut r.prompt).for_each(|token| *token %= vocab);
        let plain = SchedulerConfig { max_sequences: 6, prefill_chunk: 8, page_size: 4, cuda_graphs: false };
        let wanted = bits(&run(&device, &model, &requests, plain));
        let before = done(&device);
        let made = bits(&run(&device, &model, &requests, SchedulerConfig { cuda_graphs: true, ..plain }));
        assert!(done(&device).replays - before.replays >= 5, "{case}");
        assert_eq!(made, wanted, "{case}");
    }
}

#[test]
fn a_decode_step_is_one_copy_each_way() {
    let Some((device, model)) = fixture(DType::BF16) else { return };
    let steps = |max_tokens, n, graphs| {
        let sampling =
            SamplingParams { temperature: 0.8, repetition_penalty: 1.2, ..SamplingParams::default() };
        let request = GenerationRequest {
            n,
            sampling,
            stop_at_eos: false,
            ..GenerationRequest::greedy(vec![1, 2, 3, 4], max_tokens)
        };
        let limits = SchedulerConfig { page_size: 4, cuda_graphs: graphs, ..SchedulerConfig::default() };
        let before = done(&device);
        run(&device, &model, &[request], limits);
        let after = done(&device);
        Done {
            replays: after.replays - before.replays,
            uploads: after.uploads - before.uploads,
            downloads: after.downloads - before.downloads,
        }
    };
    for n in [1, 3] {
        for graphs in [true, false] {
            // Ten steps more, all of them decoding.
            let (few, many) = (steps(5, n, graphs), steps(15, n, graphs));
            assert_eq!(
                (many.uploads - few.uploads, many.downloads - few.downloads),
                (10, 10),
                "{n} {graphs}"
            );
            // The prompt is a step of its own, the first decode step is plain, the second recorded.
            let replays = |max_tokens: usize| if graphs { max_tokens - 2 } else { 0 };
            assert_eq!((few.replays, many.replays), (replays(5), replays(15)), "{n} {graphs}");
        }
    }
}

/// Returns the kernels of the steps that generate `tokens` tokens after a prompt, and the blocks of their grids.
fn step_launches(device: &Device, model: &Llama, prompt: usize, tokens: usize) -> Vec<(String, u64)> {
    let Device::Cuda(cuda) = device else { unreachable!("a software GPU") };
    let vocab = model.config().vocab as u32;
    let prompt = (0..prompt as u32).map(|i| 3 + i * 37 % (vocab - 3)).collect();
    let request = GenerationRequest { stop_at_eos: false, ..GenerationRequest::greedy(prompt, tokens) };
    let before = done(device);
    cuda.emulator().unwrap().count_launches();
    run(device, model, &[request], SchedulerConfig::default());
    let launches = cuda.emulator().unwrap().take_launches();
    assert!(done(device).replays > before.replays, "the last step was not a replay");
    launches.into_iter().map(|launch| (launch.kernel, launch.blocks)).collect()
}

/// The kernels of the last step.
fn last_step(launches: &[(String, u64)]) -> Vec<&str> {
    let kernels: Vec<&str> = launches.iter().map(|(kernel, _)| &kernel[..]).collect();
    let first = kernels.iter().rposition(|&kernel| kernel == "embed").unwrap();
    kernels[first..].to_vec()
}

/// Steps over up to 256 tokens have a block for each head, and those over more have two, also where they are replayed.
#[test]
fn a_decode_step_has_blocks_for_the_splits_of_its_longest_sequence() {
    const TOKENS: usize = 20;
    let Some((device, model)) = fixture(DType::BF16) else { return };
    let (layers, heads) = (model.config().layers, model.config().kv_heads as u64);
    for (prompt, short) in [(250, 6), (100, TOKENS - 1)] {
        let launches = step_launches(&device, &model, prompt, TOKENS);
        let blocks: Vec<u64> = launches.iter().filter(|l| l.0 == "flash_decode").map(|l| l.1).collect();
        // One token comes from the prompt's own step.
        let decoding = &blocks[blocks.len() - (TOKENS - 1) * layers..];
        let mut wanted = vec![heads; short * layers];
        wanted.resize(decoding.len(), 2 * heads);
        assert_eq!(decoding, wanted, "after a prompt of {prompt}");
    }
}

/// The base model's prompt is two splits of attention, which are joined. An adapter on all linears takes SwiGLU out of the
/// epilogue, and adds no launch beside that.
#[test]
fn a_decode_step_is_eight_launches_a_layer_and_nine_with_an_adapter() {
    let Some(device) = software_gpu() else { return };
    let layer = |norm, lora: bool| -> Vec<&str> {
        let gate_up = ["gemm_gated"];
        let adapted = |group: &[&'static str]| match lora {
            true => vec!["lora_decode"],
            false => group.to_vec(),
        };
        let mlp = if lora { [adapted(&gate_up), vec!["swiglu"]].concat() } else { gate_up.to_vec() };
        let attention = [vec![norm], adapted(&["gemm_group"]), vec!["rope_kvstore", "flash_decode"]].concat();
        [attention, adapted(&["gemm"]), vec!["add_rmsnorm"], mlp, adapted(&["gemm"])].concat()
    };
    for (lora, prompt, count) in [(false, 300, 8), (true, 100, 9)] {
        let model = match lora {
            false => fixture(DType::BF16).unwrap().1,
            true => load_adapted("tiny", &device, DType::BF16),
        };
        let layers = model.config().layers;
        let launches = step_launches(model.rank_layout().device(), &model, prompt, 4);
        let mut wanted = vec!["embed"];
        wanted.extend(layer("rmsnorm", lora));
        (1..layers).for_each(|_| wanted.extend(layer("add_rmsnorm", lora)));
        wanted.extend(["add_rmsnorm", "gemm", "sample"]);
        assert_eq!(last_step(&launches), wanted, "lora {lora}");
        assert_eq!(layer("rmsnorm", lora).len(), count, "lora {lora}");
    }
}
