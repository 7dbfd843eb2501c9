use super::*;
use crate::cuda::devices;
use approx::{assert_abs_diff_eq, assert_abs_diff_ne};
use codelsi_engine::Comm;

#[test]
fn a_target_outside_the_vocabulary_is_named() {
    let device = Device::cpu();
    let zeros = |shape: [usize; 2]| device.zeros(Label::Activations, shape, DType::F32);
    for bad in [5, -1] {
        let targets = Targets::new(&device, &[IGNORE_INDEX, bad]).unwrap();
        let cx = Ctx::inference(&device);
        let error = xent(&cx, &zeros([2, 3]), &zeros([5, 3]), &targets, 1.0).unwrap_err();
        let message = format!("xent: target {bad} of token 1 is outside the vocabulary of 5");
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn another_number_of_labels_than_was_said_is_refused() {
    for device in devices() {
        let zeros = |shape: [usize; 2]| device.zeros(Label::Activations, shape, DType::F32);
        let ids = device.tensor(Label::Activations, [2], &[IGNORE_INDEX, 3]).unwrap();
        let run = |labelled| {
            let targets = Targets::counted(ids.clone(), labelled);
            xent(&Ctx::inference(&device), &zeros([2, 3]), &zeros([5, 3]), &targets, 1.0)
        };
        assert!(run(1).is_ok());
        assert!(run(2).is_err());
    }
}

#[test]
fn a_token_s_logprob_does_not_depend_on_the_tokens_beside_it() {
    let device = Device::cpu();
    let cx = Ctx::inference(&device);
    let (t, c, v) = (300, 24, 70);
    let wave = |n: usize, f: f32| (0..n).map(|i| (i as f32 * f).sin()).collect::<Vec<f32>>();
    let (h, head) = (wave(t * c, 0.7), wave(v * c, 0.3));
    let head = device.tensor(Label::Weights, [v, c], &head).unwrap();
    let run = |rows: std::ops::Range<usize>| {
        let part = &h[rows.start * c..rows.end * c];
        let h = device.tensor(Label::Activations, [rows.len(), c], part).unwrap();
        let y: Vec<i32> = rows.map(|t| (t % v) as i32).collect();
        let y = Targets::new(&device, &y).unwrap();
        xent(&cx, &h, &head, &y, 1.0).unwrap().1.slice::<f32>().unwrap().to_vec()
    };
    let all = run(0..t);
    assert_eq!(run(17..18), all[17..18]);
    assert_eq!(run(100..290), all[100..290]);
}

/// Returns the peak bytes of loss and dh at these sizes, from the ledger of the planning device.
fn peak(t: usize, v: usize) -> usize {
    let device = Device::plan();
    let cx = Ctx::training(&device, 0, 0);
    let c = 64;
    let h = device.empty(Label::Activations, [t, c], DType::BF16).with_grad();
    let head = device.empty(Label::Weights, [v, c], DType::BF16);
    let targets = Targets::new(&device, &vec![0; t]).unwrap();
    xent(&cx, &h, &head, &targets, 1.0).unwrap();
    let inputs = h.byte_len() + head.byte_len() + targets.ids().byte_len();
    let outputs = h.byte_len() + 4 * t + 4;
    device.ledger().usage().peak - inputs - outputs
}

#[test]
fn working_memory_grows_neither_with_tokens_nor_with_the_vocabulary() {
    assert_eq!(peak(4096, 32016), 252 * (64 * 2 + 4096 * 4 + 4096 * 2 + 2 * 64 * 4));
    assert_eq!(peak(40960, 32016), peak(4096, 32016));
    assert_eq!(peak(4096, 128256), peak(4096, 32016));
}

#[test]
fn the_gradient_scales_with_that_of_the_loss() {
    for device in devices() {
        let gradient = |dloss: f32| {
            let cx = Ctx::training(&device, 0, 0);
            let h = device.tensor(Label::Activations, [1, 2], &[1.0f32, -1.0]).unwrap().with_grad();
            let head = device.tensor(Label::Weights, [2, 2], &[1.0f32, 0.0, 0.0, 1.0]).unwrap();
            let y = Targets::new(&device, &[1]).unwrap();
            let (loss, _) = xent(&cx, &h, &head, &y, 1.0).unwrap();
            let mut grads = codelsi_engine::Grads::default();
            let seed = device.tensor(Label::Gradients, [1], &[dloss]).unwrap();
            cx.backward([(&loss, seed)], &mut grads).unwrap();
            grads.get(&h).unwrap().to_vec::<f32>().unwrap()
        };
        let one = gradient(1.0);
        assert_eq!(gradient(-4.0), [-4.0 * one[0], -4.0 * one[1]]);
        // p = softmax(1, −1); dh = p − (0, 1).
        let p = 1.0 / (1.0 + (-2f32).exp());
        assert_abs_diff_eq!(one[..], [p, -p], epsilon = 1e-6);
    }
}

#[test]
fn without_any_label_everything_is_zero() {
    for device in devices() {
        let cx = Ctx::training(&device, 0, 0);
        let zeros = || device.zeros(Label::Activations, [2, 3], DType::F32).with_grad();
        let (h, head) = (zeros(), zeros());
        let targets = Targets::new(&device, &[IGNORE_INDEX; 2]).unwrap();
        let (loss, logprobs) = xent(&cx, &h, &head, &targets, 1.0).unwrap();
        assert_eq!(
            (loss.to_vec::<f32>().unwrap()[0], logprobs.to_vec::<f32>().unwrap()),
            (0.0, vec![0.0; 2])
        );
        let mut grads = codelsi_engine::Grads::default();
        let seed = device.tensor(Label::Gradients, [1], &[1.0f32]).unwrap();
        cx.backward([(&loss, seed)], &mut grads).unwrap();
        assert!([h, head].iter().all(|x| grads.get(x).unwrap().to_vec::<f32>().unwrap() == [0.0; 6]));
    }
}

/// Returns each rank's loss, logprobs and dh of five tokens; `world` ranks share ten rows of a head.
fn results_of_ranks(device: &Device, world: usize) -> Vec<[Vec<f32>; 3]> {
    let (t, c, v) = (5, 16, 10);
    let wave = |n: usize, f: f32| (0..n).map(|i| 2.0 * (i as f32 * f).sin()).collect::<Vec<f32>>();
    let (h, head) = (wave(t * c, 0.7), wave(v * c, 0.3));
    let rank = |comm: codelsi_engine::comm::HostComm| {
        let held = v.div_ceil(world);
        let rows = (comm.rank() * held)..v.min((comm.rank() + 1) * held);
        let cx = Ctx::training(device, 0, 0).with_comm(std::sync::Arc::new(comm));
        let h = device.tensor(Label::Activations, [t, c], &h).unwrap().with_grad();
        let part = &head[rows.start * c..rows.end * c];
        let part = device.tensor(Label::Weights, [rows.len(), c], part).unwrap();
        let targets = Targets::new(device, &[9, 0, IGNORE_INDEX, 4, 5]).unwrap();
        let vocabulary = RowShard { first: rows.start, total: v };
        let (loss, logprobs) = vocab_parallel_xent(&cx, &h, &part, &targets, 0.25, vocabulary).unwrap();
        let mut grads = codelsi_engine::Grads::default();
        let one = device.tensor(Label::Gradients, [1], &[1.0f32]).unwrap();
        cx.backward([(&loss, one)], &mut grads).unwrap();
        [&loss, &logprobs, grads.get(&h).unwrap()].map(|x| x.to_vec::<f32>().unwrap())
    };
    std::thread::scope(|scope| {
        let group = codelsi_engine::Threads::group(world);
        let ranks: Vec<_> = group.into_iter().map(|comm| scope.spawn(|| rank(comm))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn ranks_with_parts_of_the_head_find_what_one_with_all_of_it_finds() {
    for device in devices() {
        let [loss, logprobs, dh] = results_of_ranks(&device, 1).swap_remove(0);
        for world in [2, 3] {
            let ranks = results_of_ranks(&device, world);
            assert!(ranks.iter().all(|rank| rank[0] == ranks[0][0] && rank[1] == ranks[0][1]));
            assert_abs_diff_eq!(ranks[0][0][..], loss[..], epsilon = 1e-5);
            assert_abs_diff_eq!(ranks[0][1][..], logprobs[..], epsilon = 1e-5);
            let sum: Vec<f32> = (0..dh.len()).map(|i| ranks.iter().map(|rank| rank[2][i]).sum()).collect();
            assert_abs_diff_eq!(sum[..], dh[..], epsilon = 1e-5);
            assert_abs_diff_ne!(ranks[0][2][..], dh[..], epsilon = 1e-5); // a rank's own dh is only its share
        }
    }
}
