//! The mean of several checkpoints' weights.

use crate::{Checkpoint, ModelConfig, ModelError, Weights, param_specs};

impl Checkpoint {
    /// Averages the weights of `checkpoints`; the training configuration is that of the last one.
    ///
    /// This is a model soup (Wortsman et al. 2022, arXiv 2203.05482). It combines stages of one training run that ended
    /// on different data: one stage still performs what another one has forgotten. Models that share no training make
    /// no useful average.
    ///
    /// # Errors
    /// - [`ModelError::NothingToAverage`] for fewer than two checkpoints.
    /// - [`ModelError::Unlike`] when they differ in anything but their weights.
    /// - Those of [`Weights::check`] when their weights do not fit their configuration.
    pub fn average(checkpoints: &[Self]) -> Result<Self, ModelError> {
        let [first, others @ ..] = checkpoints else { return Err(ModelError::NothingToAverage { found: 0 }) };
        let Some(last) = others.last() else { return Err(ModelError::NothingToAverage { found: 1 }) };
        first.weights.check(&param_specs(&first.config))?;
        for (i, other) in others.iter().enumerate() {
            other.weights.check(&param_specs(&other.config))?;
            if let Some(what) = first.difference(other)? {
                return Err(ModelError::Unlike { what, number: i + 2, of: checkpoints.len() });
            }
        }
        let mut weights = Weights::new();
        for spec in param_specs(&first.config) {
            let values = checkpoints.iter().map(|checkpoint| checkpoint.weights.get(&spec.name));
            let values = values.collect::<Result<Vec<_>, _>>()?;
            let mean = |i| (values.iter().map(|values| f64::from(values[i])).sum::<f64>() / values.len() as f64) as f32;
            weights.insert(spec.name, spec.shape, (0..values[0].len()).map(mean).collect())?;
        }
        Ok(Self {
            weights,
            config: first.config.clone(),
            stats: first.stats.clone(),
            tokenizer: first.tokenizer.clone(),
            card: first.card.clone(),
            train_config: last.train_config.clone(),
        })
    }

    /// The first part, other than the weights, in which `other` differs.
    fn difference(&self, other: &Self) -> Result<Option<&'static str>, ModelError> {
        let ModelConfig { features, vision, text, connector, backbone, action_head, confidence_head } = &self.config;
        let theirs = &other.config;
        let parts = [
            ("features", *features == theirs.features),
            ("vision encoder", *vision == theirs.vision),
            ("text encoder", *text == theirs.text),
            ("connector", *connector == theirs.connector),
            ("backbone", *backbone == theirs.backbone),
            ("action head", *action_head == theirs.action_head),
            ("confidence head", *confidence_head == theirs.confidence_head),
            ("normalisation", self.stats == other.stats),
            ("tokenizer", self.tokenizer.to_json()? == other.tokenizer.to_json()?),
        ];
        Ok(parts.into_iter().find(|(_, same)| !same).map(|(what, _)| what))
    }
}
