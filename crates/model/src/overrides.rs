//! Changes to the sizes of a preset.

use serde_json::{Map, Value};

use crate::{ModelConfig, ModelError};

/// Keys that are determined by the data or by other settings, with the reason.
const DECIDED_ELSEWHERE: [(&str, &str); 4] = [
    ("features", "the data set decides it"),
    ("text.vocab_size", "the tokenizer decides it"),
    ("backbone.kind", "the setting `backbone` decides it"),
    ("action_head.n_mode", "the setting `n_mode` decides it"),
];

impl ModelConfig {
    /// This configuration with other sizes.
    ///
    /// `changes` is a tree with the names of the fields of [`ModelConfig`], for example `{"vision": {"image_size":
    /// 128}, "backbone": {"d_model": 256}}`. Derived sizes are updated unless they are given: `intermediate_size`
    /// keeps its ratio to `hidden_size`, and `dt_rank` becomes `ceil(d_model / 16)`.
    ///
    /// # Errors
    /// Names an unknown key beside the known ones, a value of a wrong type, or sizes that do not make a model.
    pub fn with_sizes(&self, changes: &Map<String, Value>) -> Result<Self, ModelError> {
        let mut tree = serde_json::to_value(self).map_err(|error| ModelError::config("model", "JSON", error))?;
        merge(&mut tree, changes, "")?;
        let config: Self =
            serde_json::from_value(tree).map_err(|error| ModelError::config("model", "sizes of a model", error))?;
        config.check()?;
        Ok(config)
    }
}

/// Replaces values of `tree` by those of `changes`; messages put `prefix` before a key.
fn merge(tree: &mut Value, changes: &Map<String, Value>, prefix: &str) -> Result<(), ModelError> {
    let Value::Object(fields) = tree else {
        return Err(ModelError::config(format!("model.{prefix}"), "a value", "a table"));
    };
    derive(fields, changes);
    let known = fields.keys().cloned().collect::<Vec<_>>().join(", ");
    for (name, change) in changes {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if let Some((_, reason)) = DECIDED_ELSEWHERE.iter().find(|(decided, _)| *decided == key) {
            return Err(ModelError::config(format!("model.{key}"), "absent", format!("{change}; {reason}")));
        }
        let Some(field) = fields.get_mut(name) else {
            return Err(ModelError::config(format!("model.{key}"), format!("one of {known}"), "no such key"));
        };
        match change {
            Value::Object(changes) => merge(field, changes, &key)?,
            change if kind(change) == kind(field) => *field = change.clone(),
            change => return Err(ModelError::config(format!("model.{key}"), kind(field), change)),
        }
    }
    Ok(())
}

/// Updates the sizes that are derived from a changed one.
fn derive(fields: &mut Map<String, Value>, changes: &Map<String, Value>) {
    let number = |fields: &Map<String, Value>, name| fields.get(name).and_then(Value::as_u64);
    let new = |name| changes.get(name).and_then(Value::as_u64);
    if let (Some(hidden), Some(old), Some(wide)) =
        (new("hidden_size"), number(fields, "hidden_size"), number(fields, "intermediate_size"))
    {
        fields.insert("intermediate_size".into(), (wide * hidden / old.max(1)).into());
    }
    if let (Some(d_model), true) = (new("d_model"), fields.contains_key("dt_rank")) {
        fields.insert("dt_rank".into(), d_model.div_ceil(16).into());
    }
}

/// The type of a value, in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_u64() => "a whole number of at least 0",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}
