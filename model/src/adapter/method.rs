//! Methods of fine-tuning with a frozen base: the tensors that each adds, where, and their shapes.

use super::patterns::ModulePatterns;
use crate::config::{LinearName, ModelConfig};
use codelsi_engine::{Error, Result};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Name of a mixture's router, after the path of its module.
pub(crate) const ROUTER: &str = "router.weight";

/// A method of parameter-efficient fine-tuning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// On linears: W x + s B A x (LoRA, Hu et al., arXiv 2106.09685).
    LowRank {
        /// True: s is alpha / √R instead of alpha / R (rsLoRA, Kalajdzievski, arXiv 2312.03732).
        rslora: bool,
        /// True: every output channel has a trained magnitude m, and W + s B A gives only its direction (DoRA, Liu
        /// et al., arXiv 2402.09353).
        dora: bool,
    },
    /// On linears: W x + s Σ g_e B_e A_e x, where a router weighs the experts for each token, g = softmax(W_r x)
    /// (LoRAMoE, Dou et al., arXiv 2312.09979).
    Mixture { experts: usize },
    /// After attention and after the MLP: y + W_up relu(W_down y) (Houlsby et al., arXiv 1902.00751, without biases).
    Bottleneck,
}

/// An adapter's hyperparameters: everything except its values.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    pub method: Method,
    /// R: the rank of LoRA or of each expert, the width of a bottleneck.
    pub rank: usize,
    /// Numerator of the scaling; unused by a bottleneck.
    pub alpha: f32,
    /// Probability with which training drops an input of the adapter.
    pub dropout: f32,
    /// The adapted linears, PEFT's `target_modules`; unused by a bottleneck.
    pub targets: BTreeSet<LinearName>,
    /// Rank and alpha of each adapted module, where they differ or not all linears of a name are adapted.
    pub patterns: Option<ModulePatterns>,
    /// Modules of the base that the adapter holds and trains in full, PEFT's `modules_to_save`.
    pub modules_to_save: Vec<String>,
}

/// A module that an adapter adapts.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptedModule {
    /// Path in the checkpoint.
    pub path: String,
    /// (out, in)
    pub shape: (usize, usize),
    /// Shapes of its tensors, in the order of [`Method::tensor_names`].
    pub tensor_shapes: Vec<Vec<usize>>,
}

impl AdaptedModule {
    /// Name of the weight that is adapted.
    pub fn weight(&self) -> String {
        format!("{}.weight", self.path)
    }
}

impl Method {
    /// Plain LoRA.
    pub const LORA: Method = Method::LowRank { rslora: false, dora: false };

    /// Names of a module's tensors, to be appended to its path in files and in training: A or W_down, B or W_up,
    /// and DoRA's magnitude or a mixture's router.
    pub fn tensor_names(self) -> &'static [&'static str] {
        match self {
            Method::LowRank { dora: false, .. } => &["lora_A.weight", "lora_B.weight"],
            Method::LowRank { dora: true, .. } => {
                &["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"]
            }
            Method::Mixture { .. } => &["lora_A.weight", "lora_B.weight", ROUTER],
            Method::Bottleneck => &["down.weight", "up.weight"],
        }
    }

    /// Checks that adapters of this method can be merged into weights.
    ///
    /// # Errors
    /// For methods whose effect on a linear depends on the token.
    pub fn check_mergeable(self) -> Result<()> {
        match self {
            Method::LowRank { .. } => Ok(()),
            Method::Mixture { .. } | Method::Bottleneck => Err(Error::new(format!(
                "{self} cannot be merged into weights, because its effect depends on the token: use the adapter as it is"
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

impl FromStr for Method {
    type Err = Error;

    /// Reads the name that `Display` writes.
    fn from_str(name: &str) -> Result<Self> {
        let experts = || name.strip_prefix("a mixture of ")?.strip_suffix(" LoRA experts")?.parse().ok();
        let flags = [(false, false), (true, false), (false, true), (true, true)];
        let low_rank = flags.into_iter().map(|(rslora, dora)| Method::LowRank { rslora, dora });
        let mixture = experts().map(|experts| Method::Mixture { experts });
        let mut methods = low_rank.chain([Method::Bottleneck]).chain(mixture);
        methods
            .find(|method| method.to_string() == name)
            .ok_or_else(|| Error::new(format!("no adapter method is called `{name}`")))
    }
}

impl AdapterConfig {
    /// Hyperparameters of plain LoRA on `targets`.
    pub fn lora(rank: usize, alpha: f32, dropout: f32, targets: &[LinearName]) -> Self {
        let targets = targets.iter().copied().collect();
        let (method, patterns, modules_to_save) = (Method::LORA, None, Vec::new());
        AdapterConfig { method, rank, alpha, dropout, targets, patterns, modules_to_save }
    }

    /// Checks that the adapter has tensors.
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

    /// The adapted modules, layer by layer.
    pub fn adapted_modules(&self, config: &ModelConfig) -> Vec<AdaptedModule> {
        let module = |path: String, shape| {
            let tensor_shapes = self.tensor_shapes(self.module_settings(&path).0, shape);
            AdaptedModule { path, shape, tensor_shapes }
        };
        let layer_modules = |layer: usize| -> Vec<AdaptedModule> {
            let linear = |&linear: &LinearName| module(linear.path(layer), config.linear_shape(linear));
            let bottleneck =
                |sublayer| module(bottleneck_path(sublayer, layer), (config.hidden, config.hidden));
            match self.method {
                Method::Bottleneck => SUBLAYERS.map(bottleneck).into(),
                _ => self.targets.iter().map(linear).collect(),
            }
        };
        let mut all: Vec<AdaptedModule> = (0..config.layers).flat_map(layer_modules).collect();
        if let Some(patterns) = &self.patterns {
            all.retain(|module| patterns.modules.contains_key(&module.path));
        }
        all
    }

    /// Rank and alpha of the module at a path.
    pub fn module_settings(&self, path: &str) -> (usize, f32) {
        let own = self.patterns.as_ref().and_then(|patterns| patterns.modules.get(path));
        own.copied().unwrap_or((self.rank, self.alpha))
    }

    /// Shapes of the tensors of a module that is (out, in), in the order of its tensors' names.
    fn tensor_shapes(&self, rank: usize, (out, inner): (usize, usize)) -> Vec<Vec<usize>> {
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

    /// The scaling s of a module's output: alpha / R, or alpha / √R for rsLoRA.
    pub fn scaling(&self, path: &str) -> f32 {
        let (rank, alpha) = self.module_settings(path);
        let (rank, alpha) = (rank as f64, f64::from(alpha));
        let rslora = matches!(self.method, Method::LowRank { rslora: true, .. });
        (alpha / if rslora { rank.sqrt() } else { rank }) as f32
    }

    /// The scaling of modules without settings of their own.
    pub fn default_scaling(&self) -> f32 {
        self.scaling("")
    }
}

/// The two sublayers of a layer, whose outputs bottlenecks adapt.
pub(crate) const SUBLAYERS: [&str; 2] = ["self_attn", "mlp"];

/// Path of a bottleneck, e.g. `model.layers.3.mlp.adapter`.
pub(crate) fn bottleneck_path(sublayer: &str, layer: usize) -> String {
    format!("model.layers.{layer}.{sublayer}.adapter")
}
