use super::*;
use crate::{DType, Device, Label};

/// Whether there is a compiler; says so when there is none. With `CODELSI_REQUIRE=all` that is a failure.
pub(crate) fn nvrtc() -> bool {
    match Nvrtc::get() {
        Ok(_) => true,
        Err(e) => {
            assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{e}");
            println!("skipped: {e}");
            false
        }
    }
}

#[test]
fn a_compile_error_shows_the_source_s_own_line() {
    if !nvrtc() {
        return;
    }
    static BROKEN: Source = Source {
        name: "broken.cu",
        text: "#include \"own.cuh\"\n\nextern \"C\" __global__ void k(float *x) {\n    x[0] = twice(y);\n}\n",
        headers: &[("own.cuh", "__device__ float twice(float x) { return 2 * x; }\n")],
        variants: &["", "A=1"],
    };
    let error = compile(&BROKEN, "", "sm_80").unwrap_err().to_string();
    assert_eq!(error, "broken.cu: broken.cu(4): error: identifier \"y\" is undefined: `x[0] = twice(y);`");
    let error = compile(&BROKEN, "B=1", "sm_80").unwrap_err().to_string();
    assert_eq!(error, "broken.cu: is not made to be compiled as `B=1`");
}

#[test]
fn a_wrong_path_is_named() {
    let folder = std::env::temp_dir();
    let error = Nvrtc::open(&folder).err().unwrap().to_string();
    assert_eq!(error, format!("{}: holds no libnvrtc.so", folder.display()));
    let file = std::env::current_exe().unwrap();
    assert!(Nvrtc::open(&file).err().unwrap().to_string().contains("is no NVRTC"));
}

#[test]
fn without_a_driver_a_card_is_refused_in_one_line() {
    if let Err(e) = Cuda::count() {
        let card = Device::cuda(0).err().unwrap();
        assert_eq!(e, card);
        assert!(e.to_string().starts_with("CUDA: "), "{e}");
    }
}

fn emulated() -> Option<Device> {
    nvrtc().then(|| Device::emulated("sm_80").unwrap())
}

#[test]
fn tensors_travel_and_are_charged() {
    let Some(device) = emulated() else { return };
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
