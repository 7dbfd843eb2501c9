//! Named recipes: every figure that decides a pipeline's result.

use crate::curation::RESEMBLANCE;
use crate::protocol::ProtocolOptions;
use codelsi_demo::recipe as demo;
use codelsi_eval::judge::JudgeKind;
use codelsi_eval::protocol::PromptFormat;
use codelsi_model::template::PromptTemplate;
use codelsi_train::TrainOptions;
use codelsi_train::options::ActivationCheckpointing;
use serde_json::{Value, json};

/// One way of running the paper.
pub struct Recipe {
    pub name: &'static str,
    /// From which resemblance on a row repeats an earlier one; the demo's rows are alike by design.
    pub resemblance: Option<f64>,
    /// Paths are the pipeline's to fill in.
    pub general: TrainOptions,
    pub specialized: TrainOptions,
    /// Private rows that are trained on; those beyond them validate.
    pub private_rows: usize,
    pub protocol: ProtocolOptions,
    pub judge: JudgeKind,
}

impl Recipe {
    /// The paper's figures (arXiv 2509.14373): rank 16 on all seven linears, 2e-4 cosine, 16 sequences of 4096 a
    /// step, one epoch; 40 private rows; 20 samples at temperature 0.2.
    pub fn paper(seed: u64) -> Self {
        let general = TrainOptions { seed, ..TrainOptions::default() };
        let specialized = TrainOptions { epochs: 3, warmup: 2, batch: 4, ..general.clone() };
        Recipe {
            name: "paper",
            resemblance: Some(RESEMBLANCE),
            general,
            specialized,
            private_rows: 40,
            protocol: ProtocolOptions {
                n: 20,
                temperature: 0.2,
                top_p: 0.95,
                max_tokens: 512,
                seed,
                prompt_format: PromptFormat::Completion,
                limit: None,
            },
            judge: JudgeKind::Tsc,
        }
    }

    /// The same shape on the embedded model, in minutes on two cores.
    pub fn demo(seed: u64) -> Self {
        let stage = TrainOptions {
            seq: demo::SEQ,
            micro_batch: 4,
            dropout: 0.0,
            checkpointing: ActivationCheckpointing::NONE,
            template: PromptTemplate::Paper,
            save_every: 0,
            seed,
            ..TrainOptions::default()
        };
        let general = TrainOptions {
            lr: demo::GENERAL_LR,
            batch: demo::GENERAL_BATCH,
            epochs: demo::GENERAL_EPOCHS,
            validation: 64,
            ..stage.clone()
        };
        let specialized = TrainOptions {
            lr: demo::SPECIALIZED_LR,
            seq: demo::SPECIALIZED_SEQ,
            batch: demo::SPECIALIZED_BATCH,
            epochs: demo::SPECIALIZED_EPOCHS,
            warmup: 4,
            validation: 0,
            replay_rows: demo::REPLAY_ROWS,
            ..stage
        };
        let protocol = ProtocolOptions {
            n: demo::SAMPLES,
            max_tokens: demo::MAX_TOKENS,
            ..Recipe::paper(seed).protocol
        };
        Recipe {
            name: "demo",
            resemblance: None,
            general,
            specialized,
            private_rows: demo::PRIVATE_EXAMPLES,
            protocol,
            judge: JudgeKind::Embedded,
        }
    }

    /// The same over several languages: a template that names none of them, and in the demo answers of their length.
    pub fn for_languages(mut self) -> Self {
        for stage in [&mut self.general, &mut self.specialized] {
            stage.template = PromptTemplate::Plain;
        }
        if self.name == "demo" {
            self.protocol.n = demo::LANGUAGE_SAMPLES;
            self.protocol.max_tokens = demo::LANGUAGE_MAX_TOKENS;
        }
        self
    }

    /// For `recipe.json` and the report.
    pub fn to_json(&self) -> Value {
        let p = &self.protocol;
        json!({
            "recipe": self.name, "resemblance": self.resemblance,
            "general": self.general.recipe(),
            "specialized": self.specialized.recipe(),
            "private_rows": self.private_rows,
            "evaluation": {
                "samples": p.n, "temperature": p.temperature, "top_p": p.top_p, "max_tokens": p.max_tokens,
                "seed": p.seed, "prompt_format": p.prompt_format, "judge": self.judge, "limit": p.limit,
            },
        })
    }
}
