//! The mean of several checkpoints' weights.

use crate::{Checkpoint, ModelConfig, ModelError, Weights, param_specs};

impl Checkpoint {
    /// The checkpoint whose every weight is the mean of those of `checkpoints`, with the training configuration of the last of them.
    ///
    /// Stages of one training that ended on different data often do best together: what one of them has unlearnt the other still knows ("model soups",
    /// Wortsman et al. 2022, arXiv 2203.05482). Models that were trained apart from each other from the beginning give nothing of use.
    ///
    /// # Errors
    /// [`ModelError::NothingToAverage`] for fewer than two, [`ModelError::Unlike`] when they differ in anything but their weights, and the errors of
    /// [`Weights::check`] when their weights are not those of their configuration.
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
