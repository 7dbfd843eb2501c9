//! A mixture whose experts are adapters that were trained before (X-LoRA, Buehler and Buehler, arXiv 2402.07148).

use super::{Adapter, AdapterConfig, Method};
use codelsi_engine::{At, DType, Device, Error, Label, Result};

impl Adapter {
    /// Returns the mixture with these experts. Its routers are zero: every expert has the same weight for each token, so
    /// the update of a linear is the mean of the experts' until the routers are trained.
    ///
    /// # Errors
    /// When there is no expert, or one is not LoRA or rsLoRA, or differs from the first in rank, scale or linears.
    pub fn mixture_of(experts: &[Adapter]) -> Result<Adapter> {
        let Some(first) = experts.first().map(|expert| &expert.config) else {
            return Err(Error::new("a mixture needs at least one expert"));
        };
        let settings = |config: &AdapterConfig| (config.rank, config.default_scaling());
        for (i, config) in experts.iter().map(|expert| &expert.config).enumerate() {
            if settings(config) != settings(first) {
                let ((rank, scale), (first_rank, first_scale)) = (settings(config), settings(first));
                return Err(Error::new(format!(
                    "the experts of a mixture have one rank and one scale: expert {i} has rank {rank} and scale \
                     {scale}, expert 0 has {first_rank} and {first_scale}"
                )));
            }
        }
        // The factors beside each other are those of the sum; its scale, the mixture's, is 1.
        let parts: Vec<(&Adapter, f32)> = experts.iter().map(|expert| (expert, 1.0)).collect();
        let mut mixture = Adapter::weighted_sum(&parts).at("mixture")?;
        let (method, rank) = (Method::Mixture { experts: experts.len() }, first.rank);
        mixture.config = AdapterConfig { method, rank, alpha: rank as f32, ..mixture.config };
        for module in mixture.modules.values_mut() {
            let inner = module.a.shape().as_matrix().1;
            module.extra = Some(Device::cpu().zeros(Label::Adapters, [experts.len(), inner], DType::F32));
        }
        Ok(mixture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LinearName;
    use crate::synthetic;

    #[test]
    fn experts_that_do_not_fit_are_named() {
        let config = synthetic::config("tiny").unwrap();
        let expert =
            |rank, alpha| Adapter::init_lora(&config, rank, alpha, 0.0, &[LinearName::Q], 1).unwrap();
        let refused = |experts: &[Adapter]| Adapter::mixture_of(experts).err().unwrap().to_string();
        assert!(refused(&[]).contains("at least one expert"));
        assert!(refused(&[expert(2, 4.0), expert(3, 6.0)]).contains("expert 1 has rank 3"));
        assert!(refused(&[expert(2, 4.0), expert(2, 8.0)]).contains("scale 4"));
    }
}
