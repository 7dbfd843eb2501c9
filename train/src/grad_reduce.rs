//! Gradient reduction over micro-batches and ranks, with the same bits for any number of ranks.
//!
//! Floating-point addition is not associative, so the order of the sum is fixed: micro-batch i is leaf i of a binary
//! tree, and a node is the sum of its two halves. A rank runs a contiguous range of micro-batches and keeps one partial
//! sum per complete subtree, as a binary counter does: at most 2 log2 of them. During its last micro-batch it
//! broadcasts them, one bucket a layer, as soon as backward has passed that layer, so that communication overlaps with
//! backward. Then every rank adds the partial sums up in the order of the same tree.

use codelsi_engine::tape::accumulate;
use codelsi_engine::{At, Comm, DType, Device, Error, Grads, Label, Result, Shape, Tensor, TensorId};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::{Sender, channel};

/// The assignment of a step's micro-batches to data-parallel ranks.
#[derive(Clone, Copy, Debug)]
pub struct MicroBatchAssignment {
    micro_batches: usize,
    /// Number of micro-batches per rank; the last ranks may have fewer.
    per_rank: usize,
    world: usize,
}

/// The micro-batches of one subtree and the sum of their values.
type PartialSum<T> = (Range<usize>, T);

impl MicroBatchAssignment {
    /// Divides `micro_batches` evenly. Among the divisions with the smallest possible largest share, it takes the one
    /// whose boundaries coincide with the largest subtrees.
    pub fn new(micro_batches: usize, world: usize) -> Self {
        let smallest = micro_batches.div_ceil(world);
        let share = |unit: usize| micro_batches.div_ceil(unit).div_ceil(world) * unit;
        let units = (0..usize::BITS).map(|l| 1 << l).take_while(|&unit| unit <= smallest);
        let unit = units.filter(|&unit| share(unit) == smallest).max();
        MicroBatchAssignment { micro_batches, per_rank: share(unit.unwrap_or(1)), world }
    }

    /// The micro-batches of `rank`; none when there are more ranks than work.
    pub fn range(&self, rank: usize) -> Range<usize> {
        let start = |rank: usize| (rank * self.per_rank).min(self.micro_batches);
        start(rank)..start(rank + 1)
    }

    /// The number of micro-batches of the rank that has most of them.
    pub fn max_per_rank(&self) -> usize {
        self.range(0).len()
    }

    /// The complete subtrees of all ranks with their owners, in the order of micro-batches.
    fn subtrees(&self) -> Vec<(usize, Range<usize>)> {
        let of_rank = |rank| {
            let mut counter = Vec::new();
            for i in self.range(rank) {
                let Ok(()) =
                    push_leaf(&mut counter, (i..i + 1, ()), |(), ()| Ok::<_, std::convert::Infallible>(()));
            }
            counter.into_iter().map(move |(range, ())| (rank, range))
        };
        (0..self.world).flat_map(of_rank).collect()
    }
}

/// Adds the next leaf to a binary counter of partial sums: two neighbours that are the halves of one node are joined.
fn push_leaf<T, E>(
    counter: &mut Vec<PartialSum<T>>,
    mut node: PartialSum<T>,
    join: impl Fn(&mut T, T) -> Result<(), E>,
) -> Result<(), E> {
    while let Some((mut range, mut left)) =
        counter.pop_if(|(left, _)| left.len() == node.0.len() && left.start.is_multiple_of(2 * left.len()))
    {
        join(&mut left, node.1)?;
        range.end = node.0.end;
        node = (range, left);
    }
    counter.push(node);
    Ok(())
}

/// The sum of the leaves of `node` before `end`, from `partial_sums`, a stack with the next one on top.
fn sum_subtree(partial_sums: &mut Vec<PartialSum<Tensor>>, node: Range<usize>, end: usize) -> Result<Tensor> {
    let leaves = node.start..node.end.min(end);
    if let Some((_, sum)) = partial_sums.pop_if(|(range, _)| *range == leaves) {
        return Ok(sum);
    }
    let middle = node.start + node.len() / 2;
    if node.len() < 2 {
        return Err(Error::new(format!("micro-batch {} gave no gradient", node.start)));
    }
    let mut left = sum_subtree(partial_sums, node.start..middle, end)?;
    if middle < end {
        accumulate(&mut left, &sum_subtree(partial_sums, middle..node.end, end)?)?;
    }
    Ok(left)
}

/// Accumulates the losses and gradients of one rank's micro-batches, and broadcasts each bucket when it is complete.
pub struct GradReducer<'a> {
    device: &'a Device,
    rank: usize,
    assignment: MicroBatchAssignment,
    accumulators: Vec<Accumulator>,
    by_id: BTreeMap<TensorId, usize>,
    /// Ranges of accumulators that are broadcast together, in the order in which backward completes them.
    buckets: Vec<Range<usize>>,
    sent: usize,
    ready: Sender<Bucket>,
}

/// The partial sums of one tensor's gradient, or of the loss.
struct Accumulator {
    name: String,
    id: Option<TensorId>,
    shape: Shape,
    counter: Vec<PartialSum<Tensor>>,
    /// The micro-batch expected next.
    next: usize,
}

/// The partial sums of some accumulators, each with the rank that owns it: accumulator by accumulator, in the order of
/// micro-batches.
struct Bucket {
    parts: Vec<(usize, Tensor)>,
}

/// Runs `backward`, which passes the losses and gradients of this rank's micro-batches to the [`GradReducer`], and
/// returns the gradients of `trainable` and the loss (1), summed over all micro-batches of all ranks.
///
/// # Errors
/// When `backward` or another rank fails, or a tensor got no gradient.
pub fn reduce_gradients(
    device: &Device,
    comm: &dyn Comm,
    trainable: &[(String, &Tensor)],
    assignment: MicroBatchAssignment,
    backward: impl FnOnce(&mut GradReducer) -> Result<()>,
) -> Result<(Grads, Tensor)> {
    std::thread::scope(|scope| {
        let (ready, buckets) = channel::<Bucket>();
        let link = comm.secondary();
        let exchange = scope.spawn(move || {
            let exchanged = buckets.into_iter().map(|mut b| link.broadcast(&mut b.parts).map(|()| b));
            exchanged.collect::<Result<Vec<Bucket>>>()
        });
        let mut reducer = GradReducer::new(device, comm.rank(), trainable, assignment, ready);
        let result = backward(&mut reducer).and_then(|()| reducer.close());
        let GradReducer { accumulators, ready, .. } = reducer;
        drop(ready); // so that the exchange ends
        let buckets = exchange.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        result?;
        totals(accumulators, buckets, assignment)
    })
}

/// The total of every accumulator; the first one is the loss.
fn totals(
    accumulators: Vec<Accumulator>,
    buckets: Vec<Bucket>,
    assignment: MicroBatchAssignment,
) -> Result<(Grads, Tensor)> {
    let subtrees = assignment.subtrees();
    let mut parts = buckets.into_iter().flat_map(|bucket| bucket.parts);
    let mut totals = accumulators.into_iter().map(|accumulator| {
        let partial = subtrees.iter().zip(&mut parts).map(|((_, range), (_, sum))| (range.clone(), sum));
        let mut stack: Vec<PartialSum<Tensor>> = partial.collect();
        stack.reverse();
        let root = 0..assignment.micro_batches.next_power_of_two();
        let sum = sum_subtree(&mut stack, root, assignment.micro_batches).at(accumulator.name)?;
        Ok((accumulator.id, sum))
    });
    let (_, loss) = totals.next().ok_or_else(|| Error::new("a step sums its loss at least"))??;
    let gradients = totals.filter_map(|total| total.map(|(id, sum)| Some((id?, sum))).transpose());
    Ok((gradients.collect::<Result<_>>()?, loss))
}

impl<'a> GradReducer<'a> {
    fn new(
        device: &'a Device,
        rank: usize,
        trainable: &[(String, &Tensor)],
        assignment: MicroBatchAssignment,
        ready: Sender<Bucket>,
    ) -> Self {
        let next = assignment.range(rank).start;
        let accumulator =
            |name: &str, id, shape| Accumulator { name: name.into(), id, shape, counter: Vec::new(), next };
        let mut accumulators = vec![accumulator("loss", None, [1].into())];
        // Backward reaches the last layer first.
        accumulators.extend(trainable.iter().rev().map(|(name, t)| accumulator(name, t.id(), *t.shape())));
        let by_id = accumulators.iter().enumerate().filter_map(|(i, a)| Some((a.id?, i))).collect();
        let mut buckets: Vec<Range<usize>> = Vec::new();
        for bucket in accumulators.chunk_by(|a, b| bucket_name(&a.name) == bucket_name(&b.name)) {
            let start = buckets.last().map_or(0, |last| last.end);
            buckets.push(start..start + bucket.len());
        }
        GradReducer { device, rank, assignment, accumulators, by_id, buckets, sent: 0, ready }
    }

    /// The micro-batches of this rank.
    pub fn range(&self) -> Range<usize> {
        self.assignment.range(self.rank)
    }

    /// Adds the loss (1) of micro-batch `i`.
    ///
    /// # Errors
    /// When micro-batch `i` has added its loss before, or another rank is gone.
    pub fn add_loss(&mut self, i: usize, loss: &Tensor) -> Result<()> {
        self.accumulate(0, i, loss.detach())
    }

    /// Adds the final gradient that micro-batch `i` has for the tensor `id`.
    ///
    /// # Errors
    /// When micro-batch `i` has added it before, `id` is not trained, or another rank is gone.
    pub fn add_gradient(&mut self, i: usize, id: TensorId, gradient: Tensor) -> Result<()> {
        let untrained = || Error::new("a tensor that is not trained got a gradient");
        let index = *self.by_id.get(&id).ok_or_else(untrained)?;
        self.accumulate(index, i, gradient)
    }

    fn accumulate(&mut self, index: usize, i: usize, x: Tensor) -> Result<()> {
        let Accumulator { name, counter, next, .. } = &mut self.accumulators[index];
        if *next != i {
            return Err(Error::new(format!(
                "{name}: micro-batch {i} gave two gradients, or {next} gave none"
            )));
        }
        *next += 1;
        push_leaf(counter, (i..i + 1, x), |sum, x| accumulate(sum, &x))?;
        self.send_complete_buckets()
    }

    fn send_complete_buckets(&mut self) -> Result<()> {
        let (end, subtrees) = (self.range().end, self.assignment.subtrees());
        while let Some(bucket) = self.buckets.get(self.sent) {
            let accumulators = &mut self.accumulators[bucket.clone()];
            if accumulators.iter().any(|accumulator| accumulator.next != end) {
                break;
            }
            let mut parts = Vec::new();
            for accumulator in accumulators {
                let mut own_sums = std::mem::take(&mut accumulator.counter).into_iter();
                for &(owner, _) in &subtrees {
                    let own = if owner == self.rank { own_sums.next().map(|(_, sum)| sum) } else { None };
                    let receive = || self.device.empty(Label::Gradients, accumulator.shape, DType::F32);
                    parts.push((owner, own.unwrap_or_else(receive)));
                }
            }
            // The receiver is gone only after its own error, which is reported.
            self.ready.send(Bucket { parts }).map_err(|_| Error::new("the exchange of gradients ended"))?;
            self.sent += 1;
        }
        Ok(())
    }

    /// Sends the remaining buckets: all of them on a rank without work.
    fn close(&mut self) -> Result<()> {
        self.send_complete_buckets()?;
        let Some(bucket) = self.buckets.get(self.sent) else { return Ok(()) };
        let end = self.range().end;
        let missing = self.accumulators[bucket.clone()].iter().find(|accumulator| accumulator.next != end);
        let name = missing.map_or("a tensor", |accumulator| &accumulator.name);
        Err(Error::new(format!("{name} got no gradient")))
    }
}

/// The bucket of a tensor: `model.layers.7` for what belongs to a layer, its own name for anything else.
fn bucket_name(name: &str) -> &str {
    match name.strip_prefix("model.layers.").and_then(|rest| rest.find('.')) {
        Some(number) => &name[.."model.layers.".len() + number],
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_engine::{ReduceOp, Solo};
    use std::sync::Mutex;
    use std::sync::mpsc::Receiver;
    use std::time::Duration;

    /// The communicator of a single rank that reports how many tensors each broadcast carries.
    struct CountingComm(Mutex<Sender<usize>>);

    impl Comm for CountingComm {
        fn rank(&self) -> usize {
            0
        }
        fn world(&self) -> usize {
            1
        }
        fn all_reduce(&self, x: &mut Tensor, op: ReduceOp) -> Result<()> {
            Solo.all_reduce(x, op)
        }
        fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
            Solo.all_gather(x, out)
        }
        fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
            Solo.reduce_scatter(x, out)
        }
        fn broadcast(&self, parts: &mut [(usize, Tensor)]) -> Result<()> {
            self.0.lock().unwrap().send(parts.len()).map_err(|e| Error::new(e.to_string()))
        }
        fn barrier(&self) -> Result<()> {
            Ok(())
        }
        fn secondary(&self) -> &dyn Comm {
            self
        }
        fn abort(&self, _: &str) {}
        fn seconds(&self) -> f64 {
            0.0
        }
    }

    #[test]
    fn a_layer_is_sent_while_backward_goes_on() {
        let device = Device::cpu();
        let tensor = || device.tensor(Label::Gradients, [1], &[1.0f32]).unwrap().with_grad();
        let names = ["model.layers.0.a", "model.layers.1.a", "model.layers.1.b"];
        let tensors = names.map(|_| tensor());
        let trainable: Vec<_> = names.iter().map(|n| n.to_string()).zip(&tensors).collect();
        let (sender, sent) = channel();
        let received = |sent: &Receiver<usize>| sent.recv_timeout(Duration::from_secs(10)).ok();
        let backward = |reducer: &mut GradReducer| {
            let add = |reducer: &mut GradReducer, i, t: usize| {
                reducer.add_gradient(i, tensors[t].id().unwrap(), tensor())
            };
            // Nothing is sent during the first of two micro-batches.
            reducer.add_loss(0, &tensor())?;
            (0..3).try_for_each(|t| add(reducer, 0, t))?;
            reducer.add_loss(1, &tensor())?;
            assert_eq!(received(&sent), Some(1), "the loss");
            add(reducer, 1, 2)?;
            add(reducer, 1, 1)?;
            assert_eq!(received(&sent), Some(2), "layer 1, before layer 0 has its gradient");
            add(reducer, 1, 0)?;
            assert!(add(reducer, 1, 0).is_err(), "a second gradient");
            Ok(())
        };
        let comm = CountingComm(Mutex::new(sender));
        let assignment = MicroBatchAssignment::new(2, 1);
        let (grads, loss) = reduce_gradients(&device, &comm, &trainable, assignment, backward).unwrap();
        assert_eq!(received(&sent), Some(1), "layer 0");
        let sums = tensors.iter().map(|t| grads.get(t).unwrap()).chain([&loss]);
        assert!(sums.into_iter().all(|sum| sum.to_vec::<f32>().unwrap() == [2.0]));
        let empty = reduce_gradients(&device, &Solo, &trainable, assignment, |_| Ok(()));
        assert!(empty.err().unwrap().to_string().contains("loss got no gradient"));
    }

    #[test]
    fn shares_are_even_contiguous_and_end_where_subtrees_end() {
        let ranges = |micro_batches, world| -> Vec<Range<usize>> {
            let assignment = MicroBatchAssignment::new(micro_batches, world);
            (0..world).map(|rank| assignment.range(rank)).collect()
        };
        assert_eq!(ranges(16, 2), [0..8, 8..16]);
        assert_eq!(ranges(16, 3), [0..6, 6..12, 12..16]);
        assert_eq!(ranges(5, 2), [0..3, 3..5]);
        assert_eq!(ranges(2, 3), [0..1, 1..2, 2..2]);
        assert_eq!(ranges(1, 2), [0..1, 1..1]);
        let roots = |micro_batches, world| MicroBatchAssignment::new(micro_batches, world).subtrees().len();
        assert_eq!((roots(16, 2), roots(16, 3), roots(16, 1), roots(11, 1)), (2, 5, 1, 3));
        for micro_batches in 1..40 {
            for world in 1..9 {
                let shares = ranges(micro_batches, world);
                assert_eq!(
                    shares.iter().cloned().flatten().collect::<Vec<_>>(),
                    (0..micro_batches).collect::<Vec<_>>()
                );
                assert_eq!(shares.iter().map(Range::len).max(), Some(micro_batches.div_ceil(world)));
            }
        }
    }

    #[test]
    fn the_tree_does_not_depend_on_the_ranks() {
        let device = Device::cpu();
        let x = |i: usize| [1.0, 3e7, -3e7, 0.1, 7.0, -0.3][i % 6] * (1.0 + i as f32 / 7.0);
        let mut order_matters = 0;
        for micro_batches in 1..20 {
            let sum = |world: usize| {
                let assignment = MicroBatchAssignment::new(micro_batches, world);
                let mut all = Vec::new();
                for rank in 0..world {
                    let mut counter = Vec::new();
                    for i in assignment.range(rank) {
                        let leaf = device.tensor(Label::Gradients, [1], &[x(i)]).unwrap();
                        push_leaf(&mut counter, (i..i + 1, leaf), |sum, x| accumulate(sum, &x)).unwrap();
                    }
                    assert!(counter.len() <= 2 * micro_batches.ilog2() as usize + 1);
                    all.extend(counter);
                }
                all.reverse();
                let root = 0..micro_batches.next_power_of_two();
                sum_subtree(&mut all, root, micro_batches).unwrap().to_vec::<f32>().unwrap()[0]
            };
            let in_order = (0..micro_batches).map(x).sum::<f32>();
            assert!((2..9).all(|world| sum(world).to_bits() == sum(1).to_bits()));
            order_matters += usize::from(sum(1) != in_order);
        }
        assert!(order_matters > 5);
    }
}
