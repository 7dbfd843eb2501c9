//! The sum of a step's gradients over micro-batches and ranks: the same bits for any number of ranks.
//!
//! Micro-batch i is leaf i of a binary tree, and a node is the sum of its halves. A rank runs a contiguous range of
//! micro-batches and keeps its whole subtrees, as a binary counter does: at most log2 of them. In its last micro-batch
//! it gives them to all ranks, layer by layer as backward leaves the layers, while backward goes on; then every rank
//! finishes the same tree.

use codelsi_engine::tape::accumulate;
use codelsi_engine::{At, Comm, DType, Device, Error, Grads, Id, Label, Result, Shape, Tensor};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::{Sender, channel};

/// Who runs which micro-batches of a step.
#[derive(Clone, Copy, Debug)]
pub struct Deal {
    micro_batches: usize,
    /// Micro-batches of every rank but the last ones.
    share: usize,
    world: usize,
}

/// A subtree and what it sums to.
type Subtree<T> = (Range<usize>, T);

impl Deal {
    /// Equal shares, cut where the largest subtrees end that keep the largest share as small as it can be.
    pub fn new(micro_batches: usize, world: usize) -> Self {
        let least = micro_batches.div_ceil(world);
        let share = |unit: usize| micro_batches.div_ceil(unit).div_ceil(world) * unit;
        let unit =
            (0..usize::BITS).map(|l| 1 << l).take_while(|&unit| unit <= least).filter(|&u| share(u) == least);
        Deal { micro_batches, share: share(unit.max().unwrap_or(1)), world }
    }

    /// The micro-batches of `rank`; none when there are more ranks than work.
    pub fn range(&self, rank: usize) -> Range<usize> {
        let at = |rank: usize| (rank * self.share).min(self.micro_batches);
        at(rank)..at(rank + 1)
    }

    /// The micro-batches of the rank that has most.
    pub fn most(&self) -> usize {
        self.range(0).len()
    }

    /// The whole subtrees of all ranks with their owners, in the order of micro-batches.
    fn subtrees(&self) -> Vec<(usize, Range<usize>)> {
        let of = |rank| {
            let mut counter = Vec::new();
            for i in self.range(rank) {
                let Ok(()) =
                    push(&mut counter, (i..i + 1, ()), |(), ()| Ok::<_, std::convert::Infallible>(()));
            }
            counter.into_iter().map(move |(range, ())| (rank, range))
        };
        (0..self.world).flat_map(of).collect()
    }
}

/// Adds the next leaf to a binary counter of subtrees: equal neighbours that are halves of one node become it.
fn push<T, E>(
    counter: &mut Vec<Subtree<T>>,
    mut node: Subtree<T>,
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

/// The sum of `node`, cut at `end`, of the subtrees that come next.
fn total(subtrees: &mut Vec<Subtree<Tensor>>, node: Range<usize>, end: usize) -> Result<Tensor> {
    let whole = node.start..node.end.min(end);
    if let Some((_, sum)) = subtrees.pop_if(|(range, _)| *range == whole) {
        return Ok(sum);
    }
    let middle = node.start + node.len() / 2;
    if node.len() < 2 {
        return Err(Error::new(format!("micro-batch {} gave no gradient", node.start)));
    }
    let mut left = total(subtrees, node.start..middle, end)?;
    if middle < end {
        accumulate(&mut left, &total(subtrees, middle..node.end, end)?)?;
    }
    Ok(left)
}

/// Takes what the micro-batches of one rank give.
pub struct Adder<'a> {
    device: &'a Device,
    rank: usize,
    deal: Deal,
    slots: Vec<Slot>,
    by_id: BTreeMap<Id, usize>,
    /// Slots that travel together, in the order in which backward finishes them.
    buckets: Vec<Range<usize>>,
    sent: usize,
    ready: Sender<Bucket>,
}

/// One summed tensor.
struct Slot {
    name: String,
    id: Option<Id>,
    shape: Shape,
    counter: Vec<Subtree<Tensor>>,
    /// The micro-batch that gives next.
    next: usize,
}

/// The subtrees of some slots, each with its owner: slot by slot, in the order of micro-batches.
struct Bucket {
    parts: Vec<(usize, Tensor)>,
}

/// Runs `fill`, which gives `comm`'s share of the losses and gradients of `trainable` to the [`Adder`]; returns the
/// gradients and the loss (1), summed over all micro-batches.
///
/// # Errors
/// Those of `fill` and of the ranks; or when a tensor got no gradient.
pub fn summed(
    device: &Device,
    comm: &dyn Comm,
    trainable: &[(String, &Tensor)],
    deal: Deal,
    fill: impl FnOnce(&mut Adder) -> Result<()>,
) -> Result<(Grads, Tensor)> {
    std::thread::scope(|scope| {
        let (ready, buckets) = channel::<Bucket>();
        let link = comm.beside();
        let exchange = scope.spawn(move || {
            let exchanged = buckets.into_iter().map(|mut b| link.broadcast(&mut b.parts).map(|()| b));
            exchanged.collect::<Result<Vec<Bucket>>>()
        });
        let mut adder = Adder::new(device, comm.rank(), trainable, deal, ready);
        let filled = fill(&mut adder).and_then(|()| adder.close());
        let Adder { slots, ready, .. } = adder;
        drop(ready); // so that the exchange ends
        let buckets = exchange.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        filled?;
        finish(slots, buckets, deal)
    })
}

/// Every slot's total; the first slot is the loss.
fn finish(slots: Vec<Slot>, buckets: Vec<Bucket>, deal: Deal) -> Result<(Grads, Tensor)> {
    let subtrees = deal.subtrees();
    let mut parts = buckets.into_iter().flat_map(|bucket| bucket.parts);
    let mut totals = slots.into_iter().map(|slot| {
        let given = subtrees.iter().zip(&mut parts).map(|((_, range), (_, sum))| (range.clone(), sum));
        let mut given: Vec<Subtree<Tensor>> = given.collect();
        given.reverse();
        let root = 0..deal.micro_batches.next_power_of_two();
        Ok((slot.id, total(&mut given, root, deal.micro_batches).at(slot.name)?))
    });
    let (_, loss) = totals.next().ok_or_else(|| Error::new("a step sums its loss at least"))??;
    let named = totals.filter_map(|total| total.map(|(id, sum)| Some((id?, sum))).transpose());
    Ok((named.collect::<Result<_>>()?, loss))
}

impl<'a> Adder<'a> {
    fn new(
        device: &'a Device,
        rank: usize,
        trainable: &[(String, &Tensor)],
        deal: Deal,
        ready: Sender<Bucket>,
    ) -> Self {
        let next = deal.range(rank).start;
        let slot = |name: &str, id, shape| Slot { name: name.into(), id, shape, counter: Vec::new(), next };
        let mut slots = vec![slot("loss", None, [1].into())];
        // Backward comes to the last layer first.
        slots.extend(trainable.iter().rev().map(|(name, t)| slot(name, t.id(), *t.shape())));
        let by_id = slots.iter().enumerate().filter_map(|(i, slot)| Some((slot.id?, i))).collect();
        let mut buckets: Vec<Range<usize>> = Vec::new();
        for together in slots.chunk_by(|a, b| module(&a.name) == module(&b.name)) {
            let start = buckets.last().map_or(0, |last| last.end);
            buckets.push(start..start + together.len());
        }
        Adder { device, rank, deal, slots, by_id, buckets, sent: 0, ready }
    }

    /// Micro-batches that are this rank's.
    pub fn range(&self) -> Range<usize> {
        self.deal.range(self.rank)
    }

    /// The loss (1) of micro-batch `i`.
    ///
    /// # Errors
    /// When it has been given, or another rank is gone.
    pub fn loss(&mut self, i: usize, loss: &Tensor) -> Result<()> {
        self.take(0, i, loss.detach())
    }

    /// The whole gradient that micro-batch `i` has for the tensor `id`.
    ///
    /// # Errors
    /// When it has been given, nothing is trained under this id, or another rank is gone.
    pub fn add(&mut self, i: usize, id: Id, gradient: Tensor) -> Result<()> {
        let slot =
            *self.by_id.get(&id).ok_or_else(|| Error::new("a tensor that is not trained got a gradient"))?;
        self.take(slot, i, gradient)
    }

    fn take(&mut self, slot: usize, i: usize, x: Tensor) -> Result<()> {
        let Slot { name, counter, next, .. } = &mut self.slots[slot];
        if *next != i {
            return Err(Error::new(format!(
                "{name}: micro-batch {i} gave two gradients, or {next} gave none"
            )));
        }
        *next += 1;
        push(counter, (i..i + 1, x), |sum, x| accumulate(sum, &x))?;
        self.send()
    }

    /// Sends the buckets that are whole, in their order.
    fn send(&mut self) -> Result<()> {
        let (end, subtrees) = (self.range().end, self.deal.subtrees());
        while let Some(bucket) = self.buckets.get(self.sent) {
            let slots = &mut self.slots[bucket.clone()];
            if slots.iter().any(|slot| slot.next != end) {
                break;
            }
            let mut parts = Vec::new();
            for slot in slots {
                let mut mine = std::mem::take(&mut slot.counter).into_iter();
                for &(owner, _) in &subtrees {
                    let own = if owner == self.rank { mine.next().map(|(_, sum)| sum) } else { None };
                    let empty = || self.device.empty(Label::Gradients, slot.shape, DType::F32);
                    parts.push((owner, own.unwrap_or_else(empty)));
                }
            }
            // Who does not take it has met an error, which is reported.
            self.ready.send(Bucket { parts }).map_err(|_| Error::new("the exchange of gradients ended"))?;
            self.sent += 1;
        }
        Ok(())
    }

    /// Sends what is left: all of it on a rank without work.
    fn close(&mut self) -> Result<()> {
        self.send()?;
        let Some(bucket) = self.buckets.get(self.sent) else { return Ok(()) };
        let end = self.range().end;
        let missing = self.slots[bucket.clone()].iter().find(|slot| slot.next != end);
        Err(Error::new(format!("{} got no gradient", missing.map_or("a tensor", |slot| &slot.name))))
    }
}

/// `model.layers.7` of what is in a layer; the whole name of anything else.
fn module(name: &str) -> &str {
    match name.strip_prefix("model.layers.").and_then(|rest| rest.find('.')) {
        Some(number) => &name[.."model.layers.".len() + number],
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_engine::{Reduce, Solo};
    use std::sync::Mutex;
    use std::sync::mpsc::Receiver;
    use std::time::Duration;

    /// The only rank, which tells how many tensors each of its exchanges carries.
    struct Telling(Mutex<Sender<usize>>);

    impl Comm for Telling {
        fn rank(&self) -> usize {
            0
        }
        fn world(&self) -> usize {
            1
        }
        fn all_reduce(&self, x: &mut Tensor, how: Reduce) -> Result<()> {
            Solo.all_reduce(x, how)
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
        fn beside(&self) -> &dyn Comm {
            self
        }
        fn abort(&self, _: &str) {}
        fn seconds(&self) -> f64 {
            0.0
        }
    }

    #[test]
    fn a_layer_travels_while_backward_goes_on() {
        let device = Device::cpu();
        let tensor = || device.tensor(Label::Gradients, [1], &[1.0f32]).unwrap().with_grad();
        let names = ["model.layers.0.a", "model.layers.1.a", "model.layers.1.b"];
        let tensors = names.map(|_| tensor());
        let trainable: Vec<_> = names.iter().map(|n| n.to_string()).zip(&tensors).collect();
        let (tell, told) = channel();
        let arrived = |told: &Receiver<usize>| told.recv_timeout(Duration::from_secs(10)).ok();
        let fill = |adder: &mut Adder| {
            let add = |adder: &mut Adder, i, t: usize| adder.add(i, tensors[t].id().unwrap(), tensor());
            // Of the first of two micro-batches nothing travels.
            adder.loss(0, &tensor())?;
            (0..3).try_for_each(|t| add(adder, 0, t))?;
            adder.loss(1, &tensor())?;
            assert_eq!(arrived(&told), Some(1), "the loss");
            add(adder, 1, 2)?;
            add(adder, 1, 1)?;
            assert_eq!(arrived(&told), Some(2), "layer 1, before layer 0 has its gradient");
            add(adder, 1, 0)?;
            assert!(add(adder, 1, 0).is_err(), "a second gradient");
            Ok(())
        };
        let comm = Telling(Mutex::new(tell));
        let (grads, loss) = summed(&device, &comm, &trainable, Deal::new(2, 1), fill).unwrap();
        assert_eq!(arrived(&told), Some(1), "layer 0");
        let sums = tensors.iter().map(|t| grads.get(t).unwrap()).chain([&loss]);
        assert!(sums.into_iter().all(|sum| sum.to_vec::<f32>().unwrap() == [2.0]));
        let nothing = summed(&device, &Solo, &trainable, Deal::new(2, 1), |_| Ok(()));
        assert!(nothing.err().unwrap().to_string().contains("loss got no gradient"));
    }

    #[test]
    fn shares_are_even_contiguous_and_cut_where_subtrees_end() {
        let ranges = |micro_batches, world| -> Vec<Range<usize>> {
            let deal = Deal::new(micro_batches, world);
            (0..world).map(|rank| deal.range(rank)).collect()
        };
        assert_eq!(ranges(16, 2), [0..8, 8..16]);
        assert_eq!(ranges(16, 3), [0..6, 6..12, 12..16]);
        assert_eq!(ranges(5, 2), [0..3, 3..5]);
        assert_eq!(ranges(2, 3), [0..1, 1..2, 2..2]);
        assert_eq!(ranges(1, 2), [0..1, 1..1]);
        let roots = |micro_batches, world| Deal::new(micro_batches, world).subtrees().len();
        assert_eq!((roots(16, 2), roots(16, 3), roots(16, 1), roots(11, 1)), (2, 5, 1, 3));
        for micro_batches in 1..40 {
            for world in 1..9 {
                let ranges = ranges(micro_batches, world);
                assert_eq!(
                    ranges.iter().cloned().flatten().collect::<Vec<_>>(),
                    (0..micro_batches).collect::<Vec<_>>()
                );
                assert_eq!(ranges.iter().map(Range::len).max(), Some(micro_batches.div_ceil(world)));
            }
        }
    }

    #[test]
    fn the_tree_does_not_know_the_ranks() {
        let device = Device::cpu();
        let x = |i: usize| [1.0, 3e7, -3e7, 0.1, 7.0, -0.3][i % 6] * (1.0 + i as f32 / 7.0);
        let mut order_matters = 0;
        for micro_batches in 1..20 {
            let sum = |world: usize| {
                let deal = Deal::new(micro_batches, world);
                let mut all = Vec::new();
                for rank in 0..world {
                    let mut counter = Vec::new();
                    for i in deal.range(rank) {
                        let leaf = device.tensor(Label::Gradients, [1], &[x(i)]).unwrap();
                        push(&mut counter, (i..i + 1, leaf), |sum, x| accumulate(sum, &x)).unwrap();
                    }
                    assert!(counter.len() <= 2 * micro_batches.ilog2() as usize + 1);
                    all.extend(counter);
                }
                all.reverse();
                let root = 0..micro_batches.next_power_of_two();
                total(&mut all, root, micro_batches).unwrap().to_vec::<f32>().unwrap()[0]
            };
            let in_order = (0..micro_batches).map(x).sum::<f32>();
            assert!((2..9).all(|world| sum(world).to_bits() == sum(1).to_bits()));
            order_matters += usize::from(sum(1) != in_order);
        }
        assert!(order_matters > 5);
    }
}
