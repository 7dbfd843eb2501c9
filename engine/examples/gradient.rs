//! A gradient on the tape: y = x² with an op of one's own, and dy/dx = 2x. Run with
//! `cargo run -p codelsi-engine --example gradient`.

use codelsi_engine::{Ctx, Device, Grads, InputGrads, Label, Op, Outs, Result, Saved, Tensor};

/// y = x², elementwise, in f32 on the CPU.
struct Square;

impl Op for Square {
    fn name(&self) -> &'static str {
        "square"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        save.keep(x[0]);
        let y: Vec<f32> = x[0].slice::<f32>()?.iter().map(|x| x * x).collect();
        Ok(vec![cx.device().tensor(Label::Activations, *x[0].shape(), &y)?])
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let pairs = saved[0].slice::<f32>()?.iter().zip(dy.slice::<f32>()?);
        let g: Vec<f32> = pairs.map(|(x, dy)| 2.0 * x * dy).collect();
        dx.add(0, cx.device().tensor(Label::Gradients, *dy.shape(), &g)?)
    }
}

fn main() -> Result<()> {
    let device = Device::cpu();
    let x = device.tensor(Label::Weights, [3], &[1.0f32, -2.0, 3.0])?.with_grad();

    let cx = Ctx::training(&device, 42, 0);
    let y = cx.apply_one(Square, &[&x])?;

    let dy = device.tensor(Label::Gradients, [3], &[1.0f32; 3])?;
    let mut grads = Grads::default();
    cx.backward([(&y, dy)], &mut grads)?;

    let dx = grads.get(&x).map(|g| g.to_vec::<f32>()).transpose()?.unwrap_or_default();
    println!("x = {:?}\ny = {:?}\ndy/dx = {dx:?}", x.slice::<f32>()?, y.slice::<f32>()?);
    assert_eq!(dx, [2.0, -4.0, 6.0]);
    Ok(())
}
