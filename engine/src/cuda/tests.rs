use super::*;
use crate::{DType, Device, Label};
use codelsi_testing::or_skip;

#[test]
fn a_compile_error_shows_the_source_s_own_line() {
    let Some(_) = or_skip(Nvrtc::get()) else { return };
    static BROKEN: Source = Source {
        name: "broken.cu",
        text: "#include \"own.cuh\"\n\nextern \"C\" __global__ void k(float *x) {\n    x[0] = twice(y);\n}\n",
        headers: &[("own.cuh", "__device__ float twice(float x) { return 2 * x; }\n")],
        constants: &[],
        variants: || vec![Variant::PLAIN, Variant::PLAIN.int("A", 1)],
    };
    let error = compile(&BROKEN, Variant::PLAIN, "sm_80").unwrap_err().to_string();
    assert_eq!(error, "broken.cu: broken.cu(4): error: identifier \"y\" is undefined: `x[0] = twice(y);`");
    let error = compile(&BROKEN, Variant::PLAIN.int("B", 1), "sm_80").unwrap_err().to_string();
    assert_eq!(error, "broken.cu: is not made to be compiled as `B=1`");
}

#[test]
fn a_wrong_path_is_named() {
    let folder = std::env::temp_dir();
    let error = Nvrtc::open(&folder).err().unwrap().to_string();
    assert_eq!(error, format!("{}: holds no libnvrtc.so", folder.display()));
    let file = std::env::current_exe().unwrap();
    assert!(Nvrtc::open(&file).err().unwrap().to_string().contains("is not an NVRTC"));
}

#[test]
fn without_a_driver_a_card_is_refused_in_one_line() {
    if let Err(e) = Cuda::card_count() {
        let card = Device::cuda(0).err().unwrap();
        assert_eq!(e, card);
        assert!(e.to_string().starts_with("CUDA: "), "{e}");
    }
}

/// Returns a software GPU, if there is an NVRTC.
pub(crate) fn software_gpu() -> Option<Device> {
    or_skip(Device::emulated("sm_80"))
}

#[test]
fn tensors_travel_and_are_charged() {
    let Some(device) = software_gpu() else { return };
    let data: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let there = device.tensor(Label::Weights, [10, 100], &data).unwrap();
    assert_eq!(device.ledger().usage().total(), 4000);
    let back = there.to(&Device::cpu(), Label::Scratch).unwrap();
    assert_eq!(back.slice::<f32>().unwrap(), data);
    assert_eq!(there.to(&device, Label::Scratch).unwrap().to_vec::<f32>().unwrap(), data);
    let mut zeros = device.zeros(Label::Scratch, [3], DType::I32);
    assert_eq!(zeros.to_vec::<i32>().unwrap(), [0; 3]);
    zeros.write(&[1, 2, 3]).unwrap();
    assert_eq!(zeros.to_vec::<i32>().unwrap(), [1, 2, 3]);
    let error = there.slice::<f32>().unwrap_err().to_string();
    assert_eq!(error, "F32 (10, 100) lives on emulated:sm_80 and is not read by the host in place");
    drop((there, zeros));
    assert_eq!(device.ledger().usage().total(), 0);
}

#[test]
fn freed_memory_is_kept_and_given_back_before_there_is_none() {
    let Some(device) = software_gpu() else { return };
    let gpu = cuda(&device).emulator().unwrap();
    gpu.set_memory(1000);
    let block = |bytes: usize| cuda(&device).alloc(Label::Scratch, bytes);
    // The freed block has the right size, so no more memory is needed.
    for _ in 0..3 {
        block(600).unwrap();
    }
    assert_eq!(gpu.trim_count(), 0);
    let other = block(500).unwrap();
    assert_eq!(gpu.trim_count(), 1, "600 bytes were kept, and 500 more do not fit");
    let error = block(501).err().unwrap();
    assert!(error.is_out_of_memory());
    let message = error.to_string();
    for part in ["emulated:sm_80: 501 bytes for scratch (in use: scratch", "out of memory", "1000 bytes"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(gpu.trim_count(), 2, "once, and not again");
    drop(other);
    block(1000).unwrap();
    assert_eq!(cuda(&device).memory_info().unwrap(), (1000, 1000));
}

static PROBE: Source = Source {
    name: "probe.cu",
    text: "extern \"C\" __global__ void probe(float *y, const float *x, int n, float add) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (n < 0) __trap();
    if (i < n) y[i] = x[i] + add;
}
",
    headers: &[],
    constants: &[],
    variants: || vec![Variant::PLAIN],
};

/// y = x + 1 for the first `n` elements, by 32 threads.
fn probe(cuda: &Cuda, y: &mut Tensor, x: &Tensor, n: i32) -> Result<()> {
    probe_with(cuda, y, x, n, 1.0)
}

/// y = x + `add` for the first `n` elements, by 32 threads.
pub(super) fn probe_with(cuda: &Cuda, y: &mut Tensor, x: &Tensor, n: i32, add: f32) -> Result<()> {
    let kernel = cuda.kernel(&PROBE, Variant::PLAIN, "probe")?;
    let args = &mut [Arg::Out(y), Arg::In(x), Arg::I32(n), Arg::F32(add)];
    // SAFETY: the software GPU checks every access.
    unsafe { kernel.launch(Grid::new(1, 32), args) }
}

pub(crate) fn cuda(device: &Device) -> &Arc<Cuda> {
    let Device::Cuda(cuda) = device else { unreachable!("the tests make CUDA devices") };
    cuda
}

#[test]
fn arguments_are_held_to_the_kernel_s_signature() {
    let Some(device) = software_gpu() else { return };
    let x = device.tensor(Label::Scratch, [2], &[1.0f32, 2.0]).unwrap();
    let mut y = device.empty(Label::Scratch, [2], DType::F32);
    probe(cuda(&device), &mut y, &x, 2).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [2.0, 3.0]);
    let kernel = cuda(&device).kernel(&PROBE, Variant::PLAIN, "probe").unwrap();
    let refused = |args: &mut [Arg]| {
        // SAFETY: refused before it starts.
        unsafe { kernel.launch(Grid::new(1, 32), args) }.unwrap_err().to_string()
    };
    assert_eq!(refused(&mut [Arg::In(&x)]), "probe: 1 arguments given, the kernel takes 4");
    let swapped = &mut [Arg::Out(&mut y), Arg::In(&x), Arg::F32(1.0), Arg::F32(1.0)];
    assert_eq!(refused(swapped), "probe: argument 2 is Float32, the kernel takes Int32");
    let elsewhere = Device::cpu().tensor(Label::Scratch, [2], &[1.0f32, 2.0]).unwrap();
    let message = "probe: argument 1: F32 (2) does not live on emulated:sm_80: copy it there first";
    assert_eq!(refused(&mut [Arg::Out(&mut y), Arg::In(&elsewhere), Arg::I32(2), Arg::F32(1.0)]), message);
    let mut shared = x.clone();
    let message = "probe: argument 0: F32 (2) cannot be written: it is shared";
    assert_eq!(refused(&mut [Arg::Out(&mut shared), Arg::In(&x), Arg::I32(2), Arg::F32(1.0)]), message);
    let error = cuda(&device).kernel(&PROBE, Variant::PLAIN, "prob").err().unwrap().to_string();
    assert_eq!(error, "probe.cu: prob: the source has no such kernel");
}

#[test]
fn writes_beyond_a_tensor_are_seen_by_bounds_and_by_fences() {
    let Some(device) = software_gpu() else { return };
    let x = device.zeros(Label::Scratch, [32], DType::F32);
    let mut y = device.empty(Label::Scratch, [3], DType::F32);
    let error = probe(cuda(&device), &mut y, &x, 4).unwrap_err().to_string();
    assert!(
        error.contains("probe") && error.contains("out of bounds") && error.contains("probe.cu:4"),
        "{error}"
    );
    cuda(&device).set_redzones(true);
    let mut y = device.empty(Label::Scratch, [3], DType::F32);
    assert!(y.to_vec::<f32>().unwrap().iter().all(|y| y.is_nan()));
    probe(cuda(&device), &mut y, &x, 4).unwrap();
    drop(y);
    let error = cuda(&device).check_redzones().unwrap_err().to_string();
    assert_eq!(error, "emulated:sm_80: a kernel wrote 1 bytes after an allocation of 12");
    cuda(&device).check_redzones().unwrap();
}

#[test]
fn a_kernel_that_stops_itself_is_an_error() {
    let Some(device) = software_gpu() else { return };
    let x = device.zeros(Label::Scratch, [3], DType::F32);
    let mut y = device.zeros(Label::Scratch, [3], DType::F32);
    let error = probe(cuda(&device), &mut y, &x, -1).unwrap_err().to_string();
    assert!(error.contains("trap") && error.contains("probe.cu:3"), "{error}");
}

#[test]
fn another_source_stands_in_for_a_kernel_s_own() {
    let Some(device) = software_gpu() else { return };
    static NEGATED: Source = Source {
        text: "extern \"C\" __global__ void probe(float *y, const float *x, int, float) { if (threadIdx.x == 0) *y = -*x; }\n",
        ..PROBE
    };
    let x = device.tensor(Label::Scratch, [1], &[3.0f32]).unwrap();
    let mut y = device.empty(Label::Scratch, [1], DType::F32);
    for (source, expected) in [(None, 4.0), (Some(&NEGATED), -3.0), (Some(&PROBE), 4.0)] {
        source.into_iter().for_each(|source| cuda(&device).substitute_source(source).unwrap());
        probe(cuda(&device), &mut y, &x, 1).unwrap();
        assert_eq!(y.to_vec::<f32>().unwrap(), [expected]);
    }
}

#[test]
fn gradients_that_meet_are_summed_on_the_device() {
    let Some(device) = software_gpu() else { return };
    // Whole packs and a tail, in both storage types.
    for n in [1, 8, 21] {
        let values = |f: f32| (0..n).map(|i| i as f32 * f).collect::<Vec<f32>>();
        let mut sum = device.tensor(Label::Gradients, [n], &values(0.5)).unwrap();
        let g = device.tensor(Label::Gradients, [n], &values(2.0)).unwrap();
        cuda(&device).accumulate(&mut sum, &g).unwrap();
        assert_eq!(sum.to_vec::<f32>().unwrap(), values(2.5));
        let halves = |f: f32| values(f).into_iter().map(half::bf16::from_f32).collect::<Vec<_>>();
        let mut sum = device.tensor(Label::Gradients, [n], &halves(0.5)).unwrap();
        let g = device.tensor(Label::Gradients, [n], &halves(2.0)).unwrap();
        cuda(&device).accumulate(&mut sum, &g).unwrap();
        assert_eq!(sum.to_vec::<half::bf16>().unwrap(), halves(2.5));
    }
}

#[test]
fn events_are_in_order() {
    let Some(device) = software_gpu() else { return };
    let cuda = cuda(&device);
    let (other, start) = (cuda.stream().unwrap(), cuda.record(Stream::COMPUTE).unwrap());
    cuda.wait(other, &start).unwrap();
    let end = cuda.record(other).unwrap();
    assert!(cuda.elapsed(&start, &end).unwrap() >= 0.0);
    cuda.synchronize().unwrap();
}

#[test]
fn a_tensor_is_filled_from_a_block_over_and_over() {
    let devices = [Some(Device::cpu()), software_gpu()];
    for device in devices.into_iter().flatten() {
        let block = device.tensor(Label::Scratch, [5], &[0f32, 1.0, 2.0, 3.0, 4.0]).unwrap();
        let mut t = device.empty(Label::Weights, [3, 4], DType::F32);
        t.fill_cyclic(&block, 3).unwrap();
        let expected = [3.0, 4.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 1.0, 2.0, 3.0, 4.0];
        assert_eq!(t.to_vec::<f32>().unwrap(), expected);
        assert!(t.fill_cyclic(&block, 5).is_err());
        assert!(device.empty(Label::Weights, [4], DType::BF16).fill_cyclic(&block, 0).is_err());
    }
}
