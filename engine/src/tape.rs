//! Reverse-mode differentiation on a tape.
//!
//! Nodes are pushed as ops run, so reverse order is already topological: backward is one reversed walk, and a
//! node drops with everything it saved as the walk passes it.

use crate::tensor::{DType, Id, Origin, Tensor};
use crate::{At, Ctx, Error, Label, Result};
use half::bf16;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Elements of a sum that are worth a task of their own.
const TASK: usize = 1 << 16;

/// The outputs of an op.
pub type Outs = Vec<Tensor>;

/// A differentiable operation with a hand-written backward.
pub trait Op: 'static {
    /// The op's folder name; errors carry it.
    fn name(&self) -> &'static str;

    /// Computes the outputs of `x` and keeps in `save` what backward will read.
    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs>;

    /// Adds the inputs' gradients to `dx`. `dy` is `None` for an output that nothing used.
    ///
    /// There is no default, so no gradient is ever lost in silence.
    fn backward(&self, cx: &Ctx, saved: &Saved, dy: &[Option<Tensor>], dx: &mut Sink<'_>) -> Result<()>;

    /// False for inference-only ops, which are refused in forward when an input wants a gradient.
    fn differentiable(&self) -> bool {
        true
    }
}

/// Tensors kept from forward for backward; keeps nothing in inference.
pub struct Saved {
    tensors: Vec<Tensor>,
    /// Those that are fetched again, by their place.
    absent: Vec<(usize, Arc<dyn Origin>)>,
    recording: bool,
}

impl Saved {
    pub(crate) fn recording() -> Self {
        Saved { tensors: Vec::new(), absent: Vec::new(), recording: true }
    }

    pub(crate) fn discarding() -> Self {
        Saved { tensors: Vec::new(), absent: Vec::new(), recording: false }
    }

    /// True when a backward may follow.
    pub fn records(&self) -> bool {
        self.recording
    }

    /// Keeps `t` as the next saved tensor; one with an origin is fetched again for backward.
    pub fn keep(&mut self, t: &Tensor) {
        match t.origin() {
            _ if !self.recording => {}
            Some(origin) => self.absent.push((self.tensors.len() + self.absent.len(), origin.clone())),
            None => {
                t.relabel(Label::Activations, Label::Saved);
                self.tensors.push(t.detach());
            }
        }
    }

    /// Fetches what was not kept.
    fn recall(&mut self, cx: &Ctx) -> Result<()> {
        for (place, origin) in self.absent.drain(..) {
            self.tensors.insert(place, origin.fetch(cx)?);
        }
        Ok(())
    }

    /// Keeps every one of `ts`, in order.
    pub fn keep_all<'a>(&mut self, ts: impl IntoIterator<Item = &'a Tensor>) {
        ts.into_iter().for_each(|t| self.keep(t));
    }
}

impl std::ops::Deref for Saved {
    type Target = [Tensor];
    fn deref(&self) -> &[Tensor] {
        &self.tensors
    }
}

/// Gradients by the id of the tensor they belong to.
#[derive(Default)]
pub struct Grads {
    by_id: BTreeMap<Id, Tensor>,
}

impl Grads {
    /// The gradient of `t`, if anything used it.
    pub fn get(&self, t: &Tensor) -> Option<&Tensor> {
        self.by_id.get(&t.id()?)
    }

    /// Takes the gradient of `t` out.
    pub fn take(&mut self, t: &Tensor) -> Option<Tensor> {
        self.by_id.remove(&t.id()?)
    }

    pub(crate) fn insert(&mut self, id: Id, g: Tensor) {
        self.by_id.insert(id, g);
    }

    /// Takes out the gradients that no node to come names: those of leaves that are final.
    pub(crate) fn settled(&mut self, open: &Open) -> Vec<(Id, Tensor)> {
        self.by_id.extract_if(.., |id, _| open.0.get(id).is_none_or(|&uses| uses == 0)).collect()
    }

    fn add(&mut self, id: Id, g: Tensor) -> Result<()> {
        match self.by_id.remove(&id) {
            None => self.insert(id, g),
            Some(mut sum) => {
                accumulate(&mut sum, &g)?;
                self.insert(id, sum);
            }
        }
        Ok(())
    }
}

impl FromIterator<(Id, Tensor)> for Grads {
    fn from_iter<I: IntoIterator<Item = (Id, Tensor)>>(gradients: I) -> Self {
        Grads { by_id: gradients.into_iter().collect() }
    }
}

/// Where an op's backward leaves the gradients of its inputs.
pub struct Sink<'a> {
    inputs: &'a [Option<Id>],
    grads: &'a mut Grads,
}

impl Sink<'_> {
    /// True when input `i` wants a gradient.
    pub fn wants(&self, i: usize) -> bool {
        self.inputs[i].is_some()
    }

    /// Adds `g` to the gradient of input `i`; ignored when none is wanted.
    pub fn add(&mut self, i: usize, g: Tensor) -> Result<()> {
        self.inputs[i].map_or(Ok(()), |id| self.grads.add(id, g))
    }

    /// Takes what input `i` has gathered so far, for an op that adds to it in its own epilogue (beta = 1).
    /// Give the sum back with [`Sink::add`].
    pub fn slot(&mut self, i: usize) -> Option<Tensor> {
        self.grads.by_id.remove(&self.inputs[i]?)
    }
}

pub(crate) struct Node {
    op: Box<dyn Op>,
    saved: Saved,
    inputs: Vec<Option<Id>>,
    outputs: Vec<Option<Id>>,
}

impl Node {
    pub(crate) fn new(op: impl Op, saved: Saved, x: &[&Tensor], y: &[Tensor]) -> Self {
        Node {
            op: Box::new(op),
            saved,
            inputs: x.iter().map(|t| t.id()).collect(),
            outputs: y.iter().map(Tensor::id).collect(),
        }
    }
}

#[derive(Default)]
pub(crate) struct Tape {
    nodes: Vec<Node>,
}

impl Tape {
    pub(crate) fn push(&mut self, node: Node) {
        self.nodes.push(node);
    }

    /// Walks the tape; `passed` sees the gradients after each node, with the ids that nodes to come will read or add to.
    pub(crate) fn backward(
        mut self,
        cx: &Ctx,
        grads: &mut Grads,
        passed: &mut dyn FnMut(&mut Grads, &Open) -> Result<()>,
    ) -> Result<()> {
        let mut open = Open::default();
        self.nodes.iter().for_each(|node| open.count(node, 1));
        while let Some(mut node) = self.nodes.pop() {
            let dy: Vec<Option<Tensor>> =
                node.outputs.iter().map(|id| grads.by_id.remove(id.as_ref()?)).collect();
            if dy.iter().any(Option::is_some) {
                let mut sink = Sink { inputs: &node.inputs, grads };
                let done =
                    node.saved.recall(cx).and_then(|()| node.op.backward(cx, &node.saved, &dy, &mut sink));
                done.at(node.op.name()).at("backward")?;
            }
            open.count(&node, -1);
            passed(grads, &open)?;
        }
        Ok(())
    }
}

/// How often nodes that backward has not passed yet name a tensor.
#[derive(Default)]
pub(crate) struct Open(BTreeMap<Id, isize>);

impl Open {
    fn count(&mut self, node: &Node, by: isize) {
        for id in node.inputs.iter().chain(&node.outputs).flatten() {
            *self.0.entry(*id).or_default() += by;
        }
    }
}

/// The node of a checkpointed segment `y = f(x)`: it saved the inputs alone.
pub(crate) fn checkpoint<F>(f: F, x: &[&Tensor], y: &Tensor) -> Node
where
    F: Fn(&Ctx, &[&Tensor]) -> Result<Tensor> + 'static,
{
    let mut saved = Saved::recording();
    saved.keep_all(x.iter().copied());
    Node::new(Segment(f), saved, x, std::slice::from_ref(y))
}

struct Segment<F>(F);

impl<F: Fn(&Ctx, &[&Tensor]) -> Result<Tensor> + 'static> Op for Segment<F> {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], _: &mut Saved) -> Result<Outs> {
        Ok(vec![(self.0)(cx, x)?])
    }

    /// Replays the segment on a fresh tape, into the same gradients.
    fn backward(&self, cx: &Ctx, saved: &Saved, dy: &[Option<Tensor>], dx: &mut Sink<'_>) -> Result<()> {
        let Some(dy) = dy[0].clone() else { return Ok(()) };
        let replay = cx.segment(true);
        let x: Vec<Tensor> = (0..saved.len())
            .map(|i| if dx.wants(i) { saved[i].clone().with_grad() } else { saved[i].clone() })
            .collect();
        let y = (self.0)(&replay, &x.iter().collect::<Vec<_>>())?;
        if y.id().is_none() {
            return Ok(()); // nothing inside wants a gradient
        }
        replay.backward(&y, dy, dx.grads)?; // what is final here may yet be added to outside
        for (i, x) in x.iter().enumerate() {
            if let Some(g) = dx.grads.take(x) {
                dx.add(i, g)?;
            }
        }
        Ok(())
    }
}

/// `sum += g`, in f32, rounded to the storage type of `sum`; `sum` gets a buffer of its own where others hold it.
///
/// # Errors
/// When shapes or types differ, or are integers.
pub fn accumulate(sum: &mut Tensor, g: &Tensor) -> Result<()> {
    if sum.shape() != g.shape() || sum.dtype() != g.dtype() {
        return Err(Error::op("accumulate", format!("gradient {sum:?} and its addend {g:?} differ")));
    }
    // One gradient may have been given to two inputs.
    sum.unshare()?;
    if g.is_planned() {
        return Ok(());
    }
    if let Some(cuda) = g.cuda() {
        return cuda.accumulate(sum, g);
    }
    match g.dtype() {
        DType::F32 => {
            let pairs = sum.slice_mut::<f32>()?.par_iter_mut().with_min_len(TASK).zip(g.slice::<f32>()?);
            pairs.for_each(|(s, g)| *s += g);
        }
        DType::BF16 => {
            let pairs = sum.slice_mut::<bf16>()?.par_iter_mut().with_min_len(TASK).zip(g.slice::<bf16>()?);
            pairs.for_each(|(s, g)| *s = bf16::from_f32(s.to_f32() + g.to_f32()));
        }
        DType::I32 => return Err(Error::op("accumulate", "integers have no gradient")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

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
        fn backward(&self, cx: &Ctx, saved: &Saved, dy: &[Option<Tensor>], dx: &mut Sink<'_>) -> Result<()> {
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
        fn backward(&self, _: &Ctx, _: &Saved, _: &[Option<Tensor>], _: &mut Sink<'_>) -> Result<()> {
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
        fn backward(&self, _: &Ctx, _: &Saved, dy: &[Option<Tensor>], dx: &mut Sink<'_>) -> Result<()> {
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
        cx.backward(&y.unwrap(), ones, &mut grads).unwrap();
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
        cx.backward(&y, dy.clone(), &mut grads).unwrap();
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
        let mut told = Vec::new();
        let one = device.tensor(Label::Gradients, [1], &[1.0f32]).unwrap();
        cx.backward_each(&y, one, &mut |id, g| {
            told.push((id, g.to_vec::<f32>()?));
            Ok(())
        })
        .unwrap();
        // d(5x⁴)/dx = 160 at 2; d(w·x⁴)/dw = 16.
        assert_eq!(told, [(w.id().unwrap(), vec![16.0]), (x.id().unwrap(), vec![160.0])]);
    }

    #[test]
    fn what_has_an_origin_is_not_kept_but_fetched_again() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        struct Elsewhere(AtomicUsize);
        impl Origin for Elsewhere {
            fn fetch(&self, cx: &Ctx) -> Result<Tensor> {
                self.0.fetch_add(1, Ordering::Relaxed);
                cx.device().tensor(Label::Weights, [2], &[5.0f32, 7.0])
            }
        }
        let device = Device::cpu();
        let elsewhere = Arc::new(Elsewhere(AtomicUsize::new(0)));
        let (cx, x) = (Ctx::training(&device, 0, 0), leaf(&device, &[1.0, 2.0]));
        let w = elsewhere.fetch(&cx).unwrap().with_origin(elsewhere.clone());
        let y = cx.apply_one(Mul, &[&w, &x]).unwrap();
        drop(w);
        assert_eq!(device.ledger().usage().total(), 2 * 2 * 4, "x and y are what is left");
        let mut grads = Grads::default();
        cx.backward(&y, device.tensor(Label::Gradients, [2], &[1.0f32, 1.0]).unwrap(), &mut grads).unwrap();
        assert_eq!(grads.get(&x).unwrap().slice::<f32>().unwrap(), [5.0, 7.0]);
        assert_eq!(elsewhere.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_segment_reaches_leaves_that_it_captured() {
        let device = Device::cpu();
        let (cx, x, w) = (Ctx::training(&device, 0, 0), leaf(&device, &[5.0]), leaf(&device, &[7.0]));
        let inner = w.clone();
        let y = cx.checkpoint(move |cx, x| cx.apply_one(Mul, &[x[0], &inner]), &[&x.detach()]).unwrap();
        let mut grads = Grads::default();
        cx.backward(&y, device.tensor(Label::Gradients, [1], &[1.0f32]).unwrap(), &mut grads).unwrap();
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
}
