use super::*;
use crate::Device;
use crate::tensor::Refetch;
use std::sync::Arc;

/// y = a·b, elementwise.
struct Mul;

impl Op for Mul {
    fn name(&self) -> &'static str {
        "mul"
    }
    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        save.keep_all(x.iter().copied());
        Ok(vec![product(cx, x[0], x[1])?])
    }
    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let dy = dy[0].as_ref().unwrap();
        dx.add(0, product(cx, dy, &saved[1])?)?;
        dx.add(1, product(cx, dy, &saved[0])?)
    }
}

/// An op for inference only.
struct Argmax;

impl Op for Argmax {
    fn name(&self) -> &'static str {
        "argmax"
    }
    fn forward(&self, _: &Ctx, x: &[&Tensor], _: &mut Saved) -> Result<Outs> {
        Ok(vec![x[0].detach()])
    }
    fn backward(&self, _: &Ctx, _: &Saved, _: &[Option<Tensor>], _: &mut InputGrads<'_>) -> Result<()> {
        unreachable!("refused in forward")
    }
    fn differentiable(&self) -> bool {
        false
    }
}

fn product(cx: &Ctx, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let y: Vec<f32> = a.slice::<f32>()?.iter().zip(b.slice::<f32>()?).map(|(a, b)| a * b).collect();
    cx.device().tensor(Label::Activations, *a.shape(), &y)
}

/// y = a + b, whose backward hands one buffer to both inputs.
struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }
    fn forward(&self, cx: &Ctx, x: &[&Tensor], _: &mut Saved) -> Result<Outs> {
        let pairs = x[0].slice::<f32>()?.iter().zip(x[1].slice::<f32>()?);
        let y: Vec<f32> = pairs.map(|(a, b)| a + b).collect();
        Ok(vec![cx.device().tensor(Label::Activations, *x[0].shape(), &y)?])
    }
    fn backward(&self, _: &Ctx, _: &Saved, dy: &[Option<Tensor>], dx: &mut InputGrads<'_>) -> Result<()> {
        let dy = dy[0].as_ref().unwrap();
        dx.add(0, dy.clone())?;
        dx.add(1, dy.clone())
    }
}

fn leaf(device: &Device, x: &[f32]) -> Tensor {
    device.tensor(Label::Weights, [x.len()], x).unwrap().with_grad()
}

fn cube(cx: &Ctx, x: &Tensor) -> Result<Tensor> {
    let square = cx.apply_one(Mul, &[x, x])?;
    cx.apply_one(Mul, &[&square, x])
}

fn gradient_of_cube(checkpointed: bool) -> Vec<f32> {
    let device = Device::cpu();
    let (cx, x) = (Ctx::training(&device, 0, 0), leaf(&device, &[2.0, -3.0]));
    let y = match checkpointed {
        true => cx.checkpoint(|cx, x| cube(cx, x[0]), &[&x]),
        false => cube(&cx, &x),
    };
    let mut grads = Grads::default();
    let ones = device.tensor(Label::Gradients, [2], &[1.0f32, 1.0]).unwrap();
    cx.backward([(&y.unwrap(), ones)], &mut grads).unwrap();
    grads.get(&x).unwrap().slice::<f32>().unwrap().to_vec()
}

#[test]
fn a_value_used_twice_sums_its_gradients() {
    assert_eq!(gradient_of_cube(false), [12.0, 27.0]);
}

#[test]
fn one_gradient_given_to_two_inputs_is_summed_in_a_copy() {
    let device = Device::cpu();
    let (cx, x) = (Ctx::training(&device, 0, 0), leaf(&device, &[1.0, 2.0]));
    let y = cx.apply_one(Add, &[&x, &x]).unwrap();
    let mut grads = Grads::default();
    let dy = device.tensor(Label::Gradients, [2], &[1.0f32, 10.0]).unwrap();
    cx.backward([(&y, dy.clone())], &mut grads).unwrap();
    assert_eq!(grads.get(&x).unwrap().slice::<f32>().unwrap(), [2.0, 20.0]);
    assert_eq!(dy.slice::<f32>().unwrap(), [1.0, 10.0]);
}

#[test]
fn a_checkpointed_segment_has_the_same_gradient_and_saves_only_its_input() {
    assert_eq!(gradient_of_cube(true), [12.0, 27.0]);
    let device = Device::cpu();
    let (cx, x) = (Ctx::training(&device, 0, 0), leaf(&device, &[1.0; 64]));
    let _y = cx.checkpoint(|cx, x| cube(cx, x[0]), &[&x]).unwrap();
    assert_eq!(device.ledger().usage().total(), 2 * 64 * 4);
}

#[test]
fn a_gradient_is_handed_out_once_it_is_final_and_not_before() {
    let device = Device::cpu();
    let (cx, x, w) = (Ctx::training(&device, 0, 0), leaf(&device, &[2.0]), leaf(&device, &[5.0]));
    let inner = w.clone();
    // y = x · (x · x · w): x is used first and last, w in a segment between.
    let cube = cube(&cx, &x).unwrap();
    let part = cx.checkpoint(move |cx, x| cx.apply_one(Mul, &[x[0], &inner]), &[&cube]).unwrap();
    let y = cx.apply_one(Mul, &[&x, &part]).unwrap();
    let mut seen = Vec::new();
    let one = device.tensor(Label::Gradients, [1], &[1.0f32]).unwrap();
    cx.backward([(&y, one)], &mut |id, g: Tensor| {
        seen.push((id, g.to_vec::<f32>()?));
        Ok(())
    })
    .unwrap();
    // d(5x⁴)/dx = 160 at 2; d(w·x⁴)/dw = 16.
    assert_eq!(seen, [(w.id().unwrap(), vec![16.0]), (x.id().unwrap(), vec![160.0])]);
}

#[test]
fn what_has_an_origin_is_not_kept_but_fetched_again() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    struct Elsewhere(Device, AtomicUsize);
    impl Refetch for Elsewhere {
        fn restore(&self) -> Result<Tensor> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.tensor(Label::Weights, [2], &[5.0f32, 7.0])
        }
    }
    let device = Device::cpu();
    let elsewhere = Arc::new(Elsewhere(device.clone(), AtomicUsize::new(0)));
    let (cx, x) = (Ctx::training(&device, 0, 0), leaf(&device, &[1.0, 2.0]));
    let w = elsewhere.restore().unwrap().with_refetch(elsewhere.clone());
    let y = cx.apply_one(Mul, &[&w, &x]).unwrap();
    drop(w);
    assert_eq!(device.ledger().usage().total(), 2 * 2 * 4, "x and y are what is left");
    let mut grads = Grads::default();
    let ones = device.tensor(Label::Gradients, [2], &[1.0f32, 1.0]).unwrap();
    cx.backward([(&y, ones)], &mut grads).unwrap();
    assert_eq!(grads.get(&x).unwrap().slice::<f32>().unwrap(), [5.0, 7.0]);
    assert_eq!(elsewhere.1.load(Ordering::Relaxed), 2);
}

#[test]
fn a_segment_reaches_leaves_that_it_captured() {
    let device = Device::cpu();
    let (cx, x, w) = (Ctx::training(&device, 0, 0), leaf(&device, &[5.0]), leaf(&device, &[7.0]));
    let inner = w.clone();
    let y = cx.checkpoint(move |cx, x| cx.apply_one(Mul, &[x[0], &inner]), &[&x.detach()]).unwrap();
    let mut grads = Grads::default();
    let one = device.tensor(Label::Gradients, [1], &[1.0f32]).unwrap();
    cx.backward([(&y, one)], &mut grads).unwrap();
    assert_eq!(grads.get(&w).unwrap().slice::<f32>().unwrap(), [5.0]);
}

#[test]
fn an_inference_only_op_is_refused_when_a_gradient_is_wanted() {
    let device = Device::cpu();
    let x = leaf(&device, &[1.0]);
    assert!(Ctx::inference(&device).apply(Argmax, &[&x]).is_ok());
    let error = Ctx::training(&device, 0, 0).apply(Argmax, &[&x]).unwrap_err();
    assert_eq!(error.to_string(), "argmax: has no backward, and an input wants a gradient");
}
