//! Final gradients: those that no remaining node of the tape can read or add to.

use super::{Grads, Node};
use crate::Tensor;
use crate::tensor::TensorId;
use std::collections::BTreeMap;

/// Number of uses of each tensor, as input or output, by the nodes that backward has not passed yet.
pub(super) struct PendingUses(BTreeMap<TensorId, usize>);

impl PendingUses {
    /// Counts the uses by all of `nodes`.
    pub(super) fn of(nodes: &[Node]) -> Self {
        let mut uses = BTreeMap::new();
        nodes.iter().flat_map(Node::ids).for_each(|id| *uses.entry(id).or_default() += 1);
        PendingUses(uses)
    }

    /// Removes the uses by `node`, which backward has passed.
    pub(super) fn release(&mut self, node: &Node) {
        for id in node.ids() {
            if let Some(uses) = self.0.get_mut(&id) {
                *uses -= 1;
            }
        }
    }

    /// Removes and returns the gradients that no remaining node can add to (final leaf gradients).
    pub(super) fn take_final(&self, grads: &mut Grads) -> Vec<(TensorId, Tensor)> {
        grads.by_id.extract_if(.., |id, _| self.0.get(id).is_none_or(|&uses| uses == 0)).collect()
    }
}
