//! Published figures of small models, to set beside ours: only such as were made by the same rule, with the page that says so.
//!
//! The cards of `LLaVA-OneVision` give figures that `docs/LLaVA_OneVision.md` of `LLaVA-VL/LLaVA-NeXT` says are lmms-eval's (of 2024). What
//! other small models publish (`SmolVLM`, `nanoVLM`, `InternVL` …) is by rules of their own or with a judge model, and is left out; so are
//! figures of benchmarks that lmms-eval has a judge for (MMBench).

use serde::Serialize;

/// A figure.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figure {
    /// The model.
    pub model: &'static str,
    /// The benchmark.
    pub benchmark: &'static str,
    /// The rule.
    pub rule: &'static str,
    /// The number, as the rule calls it.
    pub number: &'static str,
    /// In its unit.
    pub value: f64,
    /// The page that gives it.
    pub source: &'static str,
}

const OV: &str = "https://huggingface.co/lmms-lab/llava-onevision-qwen2-0.5b-ov";
const SI: &str = "https://huggingface.co/lmms-lab/llava-onevision-qwen2-0.5b-si";

const fn of(
    model: &'static str,
    source: &'static str,
    benchmark: &'static str,
    number: &'static str,
    value: f64,
) -> Figure {
    Figure { model, benchmark, rule: "lmms-eval", number, value, source }
}

const FIGURES: [Figure; 6] = [
    of("LLaVA-OneVision 0.5B", OV, "ai2d", "exact_match", 0.571),
    of("LLaVA-OneVision 0.5B", OV, "mme", "mme_perception_score", 1238.0),
    of("LLaVA-OneVision 0.5B", OV, "mme", "mme_cognition_score", 240.0),
    of("LLaVA-OneVision 0.5B (single image)", SI, "ai2d", "exact_match", 0.542),
    of("LLaVA-OneVision 0.5B (single image)", SI, "mme", "mme_perception_score", 1217.0),
    of("LLaVA-OneVision 0.5B (single image)", SI, "mme", "mme_cognition_score", 272.0),
];

/// The figures of a benchmark.
pub fn figures(benchmark: &str) -> Vec<Figure> {
    FIGURES.into_iter().filter(|figure| figure.benchmark == benchmark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmarks::find;

    #[test]
    fn a_figure_stands_beside_a_number_that_its_rule_gives() {
        for figure in FIGURES {
            let rule = find(figure.benchmark).unwrap().rule(Some(figure.rule));
            assert!(rule.is_some() && figure.source.starts_with("https://"), "{figure:?}");
        }
        assert_eq!((figures("ai2d").len(), figures("pope").len()), (2, 0));
    }
}
