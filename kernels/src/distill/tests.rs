use super::*;
use crate::cuda::devices;
use crate::xent::IGNORE_INDEX;
use codelsi_engine::{Grads, Label};

fn wave(device: &Device, shape: [usize; 2], f: f32) -> Tensor {
    let data: Vec<f32> = (0..shape[0] * shape[1]).map(|i| 2.0 * (i as f32 * f).sin()).collect();
    device.tensor(Label::Activations, shape, &data).unwrap()
}

/// Returns loss, divergences and dh of five tokens, two of which do not count.
fn results(device: &Device, h: &Tensor, g: &Tensor, dloss: f32) -> [Vec<f32>; 3] {
    let cx = Ctx::training(device, 0, 0);
    let targets = Targets::new(device, &[9, IGNORE_INDEX, 4, IGNORE_INDEX, 0]).unwrap();
    let h = h.detach().with_grad();
    let (loss, divergences) = distill(&cx, &h, g, &wave(device, [10, 16], 0.3), &targets, 0.5).unwrap();
    let mut grads = Grads::default();
    let seed = device.tensor(Label::Gradients, [1], &[dloss]).unwrap();
    cx.backward([(&loss, seed)], &mut grads).unwrap();
    [&loss, &divergences, grads.get(&h).unwrap()].map(|x| x.to_vec::<f32>().unwrap())
}

#[test]
fn a_student_that_is_its_teacher_has_neither_loss_nor_gradient() {
    for device in devices() {
        let h = wave(&device, [5, 16], 0.7);
        let [loss, divergences, dh] = results(&device, &h, &h.detach(), 1.0);
        assert_eq!((loss, divergences), (vec![0.0], vec![0.0; 5]));
        assert!(dh.iter().all(|&d| d == 0.0));
    }
}

#[test]
fn tokens_without_a_label_do_not_count_and_the_gradient_scales_with_that_of_the_loss() {
    for device in devices() {
        let (h, g) = (wave(&device, [5, 16], 0.7), wave(&device, [5, 16], 0.9));
        let [loss, divergences, dh] = results(&device, &h, &g, 1.0);
        let counts: Vec<bool> = divergences.iter().map(|&d| d > 0.0).collect();
        assert_eq!(counts, [true, false, true, false, true]);
        assert_eq!(loss[0], (divergences.iter().map(|&d| d as f64).sum::<f64>() * 0.5) as f32);
        let moved: Vec<bool> = dh.chunks(16).map(|row| row.iter().any(|&d| d != 0.0)).collect();
        assert_eq!(moved, counts);
        let [_, _, scaled] = results(&device, &h, &g, -4.0);
        assert!(scaled.iter().zip(&dh).all(|(scaled, d)| *scaled == -4.0 * d));
    }
}

#[test]
fn a_teacher_or_head_that_wants_a_gradient_is_refused() {
    let device = Device::cpu();
    let frozen = || wave(&device, [2, 4], 0.7);
    let refusal = |g: Tensor, head: Tensor| {
        let cx = Ctx::training(&device, 0, 0);
        let targets = Targets::new(&device, &[0, 1]).unwrap();
        distill(&cx, &frozen().with_grad(), &g, &head, &targets, 1.0).err().map(|e| e.to_string())
    };
    assert_eq!(refusal(frozen(), frozen()), None);
    for (what, error) in [
        ("teacher", refusal(frozen().with_grad(), frozen())),
        ("head", refusal(frozen(), frozen().with_grad())),
    ] {
        let message = format!("distill: the {what} wants a gradient and gets none here: freeze it");
        assert_eq!(error.unwrap(), message);
    }
}

/// Returns the peak bytes of loss and dh at these sizes, from the ledger of the planning device.
fn peak(t: usize, v: usize) -> usize {
    let device = Device::plan();
    let cx = Ctx::training(&device, 0, 0);
    let hidden = || device.empty(Label::Activations, [t, 64], DType::BF16);
    let (h, g) = (hidden().with_grad(), hidden());
    let head = device.empty(Label::Weights, [v, 64], DType::BF16);
    let targets = Targets::new(&device, &vec![0; t]).unwrap();
    distill(&cx, &h, &g, &head, &targets, 1.0).unwrap();
    let inputs = 2 * h.byte_len() + head.byte_len() + targets.ids().byte_len();
    let outputs = h.byte_len() + 4 * t + 4;
    device.ledger().usage().peak - inputs - outputs
}

#[test]
fn working_memory_grows_neither_with_tokens_nor_with_the_vocabulary() {
    assert_eq!(peak(4096, 32016), 252 * (2 * 64 * 2 + 2 * 4096 * 4 + 4096 * 2 + 2 * 64 * 4));
    assert_eq!(peak(40960, 32016), peak(4096, 32016));
    assert_eq!(peak(4096, 128256), peak(4096, 32016));
}
