//! Which linears are adapted, with what rank and scaling: `adapter_config.json` as PEFT 0.21 understands it
//! (`peft/tuners/tuners_utils.py`, `check_target_module_exists`; `peft/utils/other.py`, `get_pattern_key`).

use std::fmt;

use regex::Regex;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Which linears get an adapter, and of what size. Field names are those of `adapter_config.json`; what a file leaves out has
/// PEFT's default, what a manifest leaves out that of the reference recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default = "LoraConfig::of_peft")]
pub struct LoraConfig {
    /// Rank of the update.
    pub r: usize,
    /// Numerator of the scaling.
    pub lora_alpha: f64,
    /// Share of the branch's inputs that are dropped in training, 0..1.
    pub lora_dropout: f64,
    /// The linears to adapt.
    #[serde(deserialize_with = "or_default")]
    pub target_modules: TargetModules,
    /// Rank-stabilised scaling, `alpha / sqrt(r)` instead of `alpha / r` (arXiv:2312.03732).
    pub use_rslora: bool,
    /// Linears that `target_modules` names but that are not adapted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_modules: Option<TargetModules>,
    /// The numbers of the layers that are adapted; `None` for all.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub layers_to_transform: Option<Vec<usize>>,
    /// Other ranks for some linears, by the end of their name.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub rank_pattern: Patterns<usize>,
    /// Other numerators of the scaling, likewise.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub alpha_pattern: Patterns<f64>,
}

impl LoraConfig {
    /// PEFT's defaults; the targets are those for `qwen3` (`TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING`).
    fn of_peft() -> Self {
        let target_modules = TargetModules::names(&["q_proj", "v_proj"]);
        Self { r: 8, lora_alpha: 8.0, lora_dropout: 0.0, target_modules, ..Self::default() }
    }
}

impl Default for LoraConfig {
    /// The reference recipe: rank 8, alpha 16, dropout 0.05 on the attention projections.
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 16.0,
            lora_dropout: 0.05,
            target_modules: TargetModules::names(&["q_proj", "k_proj", "v_proj", "o_proj"]),
            use_rslora: false,
            exclude_modules: None,
            layers_to_transform: None,
            rank_pattern: Patterns::default(),
            alpha_pattern: Patterns::default(),
        }
    }
}

/// Names of linears, or a pattern of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// Whole names or their last parts, such as `q_proj`.
    Names(Vec<String>),
    /// `all-linear`, or a regular expression that a whole name must match.
    Pattern(String),
}

/// What PEFT calls all linears but the head.
pub const ALL_LINEAR: &str = "all-linear";

impl TargetModules {
    /// A list of names.
    pub fn names(names: &[&str]) -> Self {
        Self::Names(names.iter().map(|name| (*name).to_owned()).collect())
    }

    /// The names, sorted, or the pattern, as PEFT writes them.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        if let Self::Names(names) = &mut self {
            names.sort();
        }
        self
    }
}

/// Values by patterns of names, in the order of the file: the first that matches counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Patterns<T>(pub Vec<(String, T)>);

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Patterns<T> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Serialize> Serialize for Patterns<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(pattern, value)| map.serialize_entry(pattern, value))?;
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patterns<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Patterns<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of patterns and numbers")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Patterns::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Patterns(entries))
            }
        }
        deserializer.deserialize_any(InOrder(std::marker::PhantomData))
    }
}

fn or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TargetModules, D::Error> {
    let given = Option::<TargetModules>::deserialize(deserializer)?;
    Ok(given.unwrap_or_else(|| LoraConfig::of_peft().target_modules))
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<usize>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(usize),
        Many(Vec<usize>),
    }
    let layers = Option::<OneOrMany>::deserialize(deserializer)?.map(|layers| match layers {
        OneOrMany::One(layer) => vec![layer],
        OneOrMany::Many(layers) => layers,
    });
    Ok(layers.filter(|layers| !layers.is_empty())) // PEFT takes an empty list for none given
}

/// Why an adapter fits no model.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum LoraError {
    /// A rank of zero has no parameters.
    #[error("LoRA: r = 0, but the rank must be at least 1")]
    Rank,
    /// The dropout is no probability.
    #[error("LoRA: lora_dropout = {0}, but it must be at least 0 and below 1")]
    Dropout(f64),
    /// A name in `target_modules` fits no linear of the model.
    #[error("LoRA: target module `{name}` matches none of the model's linears; their names end in {known}")]
    Target {
        /// The name.
        name: String,
        /// What could have been named.
        known: String,
    },
    /// Nothing is adapted.
    #[error(
        "LoRA: target_modules = {targets} matches none of the model's linears; their names end in {known}"
    )]
    NoTarget {
        /// The setting, as JSON.
        targets: String,
        /// What could have been named.
        known: String,
    },
    /// A regular expression is none, or one that only Python reads.
    #[error("LoRA: {field}: `{pattern}` cannot be read: {why}")]
    Pattern {
        /// The setting.
        field: &'static str,
        /// The expression.
        pattern: String,
        /// Why.
        why: String,
    },
}

/// The settings of one linear's adapter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdapterConfig {
    /// Rank of the update.
    pub r: usize,
    /// What the branch is multiplied by.
    pub scaling: f64,
    /// Share of the branch's inputs that are dropped in training.
    pub dropout: f64,
}

/// A [`LoraConfig`] whose patterns are ready to be matched.
pub struct Matcher<'a> {
    config: &'a LoraConfig,
    targets: Modules<'a>,
    excluded: Option<Modules<'a>>,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

enum Modules<'a> {
    Names(&'a [String]),
    All,
    Matching(Regex),
}

impl<'a> Modules<'a> {
    fn of(field: &'static str, modules: &'a TargetModules) -> Result<Self, LoraError> {
        match modules {
            TargetModules::Names(names) => Ok(Self::Names(names)),
            TargetModules::Pattern(text) if text.eq_ignore_ascii_case(ALL_LINEAR) => Ok(Self::All),
            TargetModules::Pattern(text) => {
                compiled(field, text, &format!("^(?:{text})$")).map(Self::Matching)
            }
        }
    }

    fn contain(&self, name: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|target| ends_with(name, target)),
            Self::All => true,
            Self::Matching(pattern) => pattern.is_match(name),
        }
    }
}

/// Whether `end` is the whole of a dotted name or its last parts.
fn ends_with(name: &str, end: &str) -> bool {
    name == end || name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.'))
}

fn compiled(field: &'static str, pattern: &str, whole: &str) -> Result<Regex, LoraError> {
    Regex::new(whole).map_err(|error| LoraError::Pattern {
        field,
        pattern: pattern.to_owned(),
        why: error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
    })
}

impl LoraConfig {
    /// Ready to be matched; an error when a pattern cannot be read.
    pub fn matcher(&self) -> Result<Matcher<'_>, LoraError> {
        let excluded = self.exclude_modules.as_ref().map(|modules| Modules::of("exclude_modules", modules));
        Ok(Matcher {
            config: self,
            targets: Modules::of("target_modules", &self.target_modules)?,
            excluded: excluded.transpose()?,
            ranks: by_name("rank_pattern", &self.rank_pattern)?,
            alphas: by_name("alpha_pattern", &self.alpha_pattern)?,
        })
    }

    /// Checks the numbers, and that something of `linears` is adapted: PEFT's own condition.
    pub fn validate(&self, linears: &[String]) -> Result<(), LoraError> {
        if self.r == 0 || self.rank_pattern.0.iter().any(|(_, rank)| *rank == 0) {
            return Err(LoraError::Rank);
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return Err(LoraError::Dropout(self.lora_dropout));
        }
        let matcher = self.matcher()?;
        if linears.iter().any(|name| matcher.adapter(name).is_some()) {
            return Ok(());
        }
        let targets = serde_json::to_string(&self.target_modules).unwrap_or_default();
        Err(LoraError::NoTarget { targets, known: last_parts(linears) })
    }

    /// As [`LoraConfig::validate`], and every name in `target_modules` must be one of `linears`: for an adapter that is to be
    /// made, a name that matches nothing is a mistake.
    pub fn validate_new(&self, linears: &[String]) -> Result<(), LoraError> {
        self.validate(linears)?;
        let TargetModules::Names(names) = &self.target_modules else { return Ok(()) };
        match names.iter().find(|target| !linears.iter().any(|name| ends_with(name, target))) {
            Some(name) => Err(LoraError::Target { name: name.clone(), known: last_parts(linears) }),
            None => Ok(()),
        }
    }
}

impl Matcher<'_> {
    /// The settings of the adapter of the linear called `name` (dotted); `None` when it has none.
    pub fn adapter(&self, name: &str) -> Option<AdapterConfig> {
        let is_adapted = self.targets.contain(name)
            && !self.excluded.as_ref().is_some_and(|excluded| excluded.contain(name))
            && self.is_in_layers(name);
        if !is_adapted {
            return None;
        }
        let r = first_match(&self.ranks, name).unwrap_or(self.config.r);
        let alpha = first_match(&self.alphas, name).unwrap_or(self.config.lora_alpha);
        let divisor = if self.config.use_rslora { (r as f64).sqrt() } else { r as f64 };
        Some(AdapterConfig { r, scaling: alpha / divisor, dropout: self.config.lora_dropout })
    }

    /// The number of the layer is the first part of the name that is one.
    fn is_in_layers(&self, name: &str) -> bool {
        let Some(layers) = &self.config.layers_to_transform else { return true };
        let number = name.split('.').skip(1).find_map(|part| part.parse::<usize>().ok());
        number.is_some_and(|number| layers.contains(&number))
    }
}

fn by_name<T: Copy>(field: &'static str, patterns: &Patterns<T>) -> Result<Vec<(Regex, T)>, LoraError> {
    let entry = |(text, value): &(String, T)| {
        Ok((compiled(field, text, &format!(r"^(?:.*\.)?(?:{text})$"))?, *value))
    };
    patterns.0.iter().map(entry).collect()
}

fn first_match<T: Copy>(patterns: &[(Regex, T)], name: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(name)).map(|(_, value)| *value)
}

/// The different last parts of dotted names, in order.
fn last_parts(names: &[String]) -> String {
    let mut parts: Vec<&str> = names.iter().filter_map(|name| name.rsplit('.').next()).collect();
    parts.sort_unstable();
    parts.dedup();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> LoraConfig {
        serde_json::from_str(json).unwrap()
    }

    fn adapted(json: &str, name: &str) -> Option<(usize, f64)> {
        config(json).matcher().unwrap().adapter(name).map(|adapter| (adapter.r, adapter.scaling))
    }

    const Q0: &str = "model.layers.0.self_attn.q_proj";
    const Q1: &str = "model.layers.1.self_attn.q_proj";
    const UP: &str = "model.layers.0.mlp.up_proj";

    #[test]
    fn a_name_is_the_last_part_and_a_pattern_the_whole() {
        assert!(adapted(r#"{"target_modules": ["q_proj", "mlp.up_proj"]}"#, UP).is_some());
        assert!(adapted(r#"{"target_modules": ["proj"]}"#, UP).is_none());
        assert!(adapted(r#"{"target_modules": ".*\\.(q|up)_proj"}"#, UP).is_some());
        assert!(adapted(r#"{"target_modules": "up_proj"}"#, UP).is_none());
        assert!(adapted(r#"{"target_modules": "All-Linear"}"#, UP).is_some());
        let lookahead = config(r#"{"target_modules": "^(?!.*visual).*q_proj"}"#);
        assert!(matches!(lookahead.matcher(), Err(LoraError::Pattern { field: "target_modules", .. })));
    }

    #[test]
    fn layers_and_exclusions_narrow_the_targets() {
        for layers in ["0", "[0]"] {
            let json = format!(r#"{{"target_modules": ["q_proj"], "layers_to_transform": {layers}}}"#);
            assert!(adapted(&json, Q0).is_some() && adapted(&json, Q1).is_none(), "{layers}");
        }
        assert!(adapted(r#"{"layers_to_transform": []}"#, Q1).is_some());
        let excluded = r#"{"target_modules": "all-linear", "exclude_modules": ["q_proj"]}"#;
        assert!(adapted(excluded, Q0).is_none() && adapted(excluded, UP).is_some());
    }

    #[test]
    fn the_first_pattern_that_matches_gives_rank_and_alpha() {
        let json = r#"{"r": 8, "lora_alpha": 16, "rank_pattern": {"layers.1.self_attn.q_proj": 2, "q_proj": 4},
            "alpha_pattern": {"layers\\.0.*": 32}}"#;
        assert_eq!(adapted(json, Q0), Some((4, 8.0)));
        assert_eq!(adapted(json, Q1), Some((2, 8.0)));
        let written = serde_json::to_string(&config(json)).unwrap();
        assert_eq!(config(&written), config(json));
        assert!(written.find("layers.1").unwrap() < written.find(r#""q_proj":4"#).unwrap(), "{written}");
    }

    #[test]
    fn a_new_adapter_needs_all_its_targets_and_a_loaded_one_any() {
        let names = [Q0, UP].map(str::to_owned);
        let some = config(r#"{"target_modules": ["q_proj", "Wqkv"]}"#);
        some.validate(&names).unwrap();
        insta::assert_snapshot!(some.validate_new(&names).unwrap_err(), @"LoRA: target module `Wqkv` matches none of the model's linears; their names end in q_proj, up_proj");
        let none = config(r#"{"target_modules": ["Wqkv"]}"#).validate(&names).unwrap_err();
        insta::assert_snapshot!(none, @r#"LoRA: target_modules = ["Wqkv"] matches none of the model's linears; their names end in q_proj, up_proj"#);
    }
}
