//! The methods of fine-tuning that leave the base's weights as they are: what each adds, where, and how large it is.

use crate::config::{Config, Linear};
use codelsi_engine::{Error, Result};
use std::collections::BTreeSet;
use std::fmt;

/// What an adapter adds to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// To linears: W x + s B A x (LoRA, Hu et al., arXiv 2106.09685).
    LowRank {
        /// s is alpha / √R instead of alpha / R (rank-stabilized, arXiv 2312.03732).
        rslora: bool,
        /// Every output channel has a trained length m, and W + s B A gives its direction alone (DoRA, arXiv 2402.09353).
        dora: bool,
    },
    /// To linears: W x + s Σ g_e B_e A_e x, where a router weighs the experts for each token, g = softmax(W_r x)
    /// (LoRAMoE, arXiv 2312.09979).
    Mixture { experts: usize },
    /// After attention and after the MLP: y + W_up relu(W_down y) (Houlsby et al., arXiv 1902.00751, without biases).
    Bottleneck,
}

/// Everything about an adapter but its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub method: Method,
    /// R: of each expert in a mixture, of the bottleneck in one.
    pub rank: usize,
    /// Unused by a bottleneck.
    pub alpha: f32,
    /// The probability with which training drops an input of the adapter.
    pub dropout: f32,
    /// The adapted linears; unused by a bottleneck.
    pub targets: BTreeSet<Linear>,
}

impl Method {
    /// LoRA as it was first described.
    pub const LORA: Method = Method::LowRank { rslora: false, dora: false };

    /// What a place's tensors are called after its path, in a file and in training: A or W_down, B or W_up, and what
    /// goes beside the two.
    pub fn tensors(self) -> &'static [&'static str] {
        match self {
            Method::LowRank { dora: false, .. } => &["lora_A.weight", "lora_B.weight"],
            Method::LowRank { dora: true, .. } => {
                &["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"]
            }
            Method::Mixture { .. } => &["lora_A.weight", "lora_B.weight", "router.weight"],
            Method::Bottleneck => &["down.weight", "up.weight"],
        }
    }

    /// Refuses what only a change of the weights themselves can do.
    ///
    /// # Errors
    /// For methods whose change depends on the token.
    pub fn check_mergeable(self) -> Result<()> {
        match self {
            Method::LowRank { .. } => Ok(()),
            Method::Mixture { .. } | Method::Bottleneck => Err(Error::new(format!(
                "{self} cannot be merged into weights, because what is added depends on the token: use the adapter as it is"
            ))),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::LowRank { rslora: false, dora: false } => f.write_str("LoRA"),
            Method::LowRank { rslora: true, dora: false } => f.write_str("rsLoRA"),
            Method::LowRank { rslora: false, dora: true } => f.write_str("DoRA"),
            Method::LowRank { rslora: true, dora: true } => f.write_str("rank-stabilized DoRA"),
            Method::Mixture { experts } => write!(f, "a mixture of {experts} LoRA experts"),
            Method::Bottleneck => f.write_str("bottleneck adapters"),
        }
    }
}

impl Settings {
    /// LoRA of `targets`.
    pub fn lora(rank: usize, alpha: f32, dropout: f32, targets: &[Linear]) -> Self {
        let targets = targets.iter().copied().collect();
        Settings { method: Method::LORA, rank, alpha, dropout, targets }
    }

    /// Refuses an adapter that would hold nothing.
    ///
    /// # Errors
    /// When the rank or the number of experts is 0, or no linear is named.
    pub fn check(&self) -> Result<()> {
        if self.method == (Method::Mixture { experts: 0 }) {
            return Err(Error::new("a mixture needs at least one expert"));
        }
        if self.rank == 0 || self.targets.is_empty() {
            return Err(Error::new("an adapter needs a rank of at least 1 and at least one linear"));
        }
        Ok(())
    }

    /// What is changed, by its path in the checkpoint, and how wide (out, in) it is, layer by layer.
    pub fn places(&self, config: &Config) -> Vec<(String, (usize, usize))> {
        let of_layer = |layer: usize| -> Vec<(String, (usize, usize))> {
            let linear = |&linear: &Linear| (linear.path(layer), config.linear_shape(linear));
            let block = |name: &str| (Block::path(name, layer), (config.hidden, config.hidden));
            match self.method {
                Method::Bottleneck => Block::NAMES.map(block).into(),
                _ => self.targets.iter().map(linear).collect(),
            }
        };
        (0..config.layers).flat_map(of_layer).collect()
    }

    /// The shapes of a place's tensors, in the order of [`Method::tensors`].
    pub fn shapes(&self, (out, inner): (usize, usize)) -> Vec<Vec<usize>> {
        let rank = self.rank;
        match self.method {
            Method::LowRank { dora: false, .. } | Method::Bottleneck => {
                vec![vec![rank, inner], vec![out, rank]]
            }
            Method::LowRank { dora: true, .. } => vec![vec![rank, inner], vec![out, rank], vec![out]],
            Method::Mixture { experts: e } => {
                vec![vec![e * rank, inner], vec![out, e * rank], vec![e, inner]]
            }
        }
    }

    /// s.
    pub fn scaling(&self) -> f32 {
        let rank = self.rank as f64;
        let rslora = matches!(self.method, Method::LowRank { rslora: true, .. });
        (self.alpha as f64 / if rslora { rank.sqrt() } else { rank }) as f32
    }
}

/// The two blocks of a layer, after which bottlenecks stand.
pub(crate) struct Block;

impl Block {
    pub const NAMES: [&'static str; 2] = ["self_attn", "mlp"];

    pub fn path(name: &str, layer: usize) -> String {
        format!("model.layers.{layer}.{name}.adapter")
    }
}
