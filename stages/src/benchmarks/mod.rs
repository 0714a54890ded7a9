//! Public benchmarks: their questions as lmms-eval and VLMEvalKit publish them, and their scorers.
//!
//! A scorer is a [`Rule`]: how an answer is read, and which numbers come of it. Where lmms-eval and VLMEvalKit differ, both
//! rules are there by name. Their code is the authority: `tests/benchmarks/make_golden.py` runs it on the same answers.
//! Where theirs asks a judge model or draws at random, ours takes what can be read without one, and counts the answers that
//! cannot be read apart (`unread`).
//!
//! | file | what |
//! |---|---|
//! | `record.rs` | a row of a TSV, Parquet, JSON or XLSX file, by column |
//! | `item.rs` | the question in it |
//! | `files.rs`, `xlsx.rs` | rows of a file |
//! | `predictions.rs` | answers made elsewhere |
//! | `rule.rs` | what a scorer is |
//! | `choice.rs` | letters of options in answers |
//! | `answer.rs` | yes and no in answers; `EvalAI`'s normal form of words |
//! | `pope.rs`, `mme.rs`, `hallusion.rs` | yes/no benchmarks |
//! | `multiple_choice.rs`, `mmbench.rs`, `mmstar.rs`, `scienceqa.rs`, `seed.rs`, `ai2d.rs`, `realworldqa.rs` | benchmarks with options |
//! | `gqa.rs`, `textvqa.rs` | short answers |
//! | `captions.rs` | captions with several references |
//! | `score.rs`, `published.rs`, `page.rs` | a benchmark's report, and what is known of other models |
//! | `parameters.rs`, `stage.rs`, `inputs.rs`, `asking.rs`, `prompt.rs` | the stage `benchmark`: its questions asked of a model |
//! | `sources.rs` | where their files are: a table with a line each |

mod ai2d;
mod answer;
pub(crate) mod asking;
mod captions;
mod choice;
pub mod files;
mod gqa;
mod hallusion;
pub(crate) mod inputs;
pub mod item;
mod mmbench;
mod mme;
mod mmstar;
mod multiple_choice;
mod page;
mod parameters;
mod pope;
pub mod predictions;
mod prompt;
pub mod published;
mod realworldqa;
pub mod record;
pub mod rule;
mod scienceqa;
pub mod score;
mod seed;
pub mod sources;
pub mod stage;
mod textvqa;
mod xlsx;

use rule::Rule;

/// lmms-eval's rules.
pub const LMMS_EVAL: &str = "lmms-eval";
/// VLMEvalKit's rules, by its `exact_matching` (no judge model).
pub const VLMEVALKIT: &str = "vlmevalkit";

/// A public benchmark.
#[derive(Debug)]
pub struct Benchmark {
    /// As commands and manifests name it.
    pub name: &'static str,
    /// What it asks.
    pub about: &'static str,
    /// A question as it is asked.
    pub prompt: fn(&item::Item) -> String,
    /// Its scorers, the default one first.
    pub rules: &'static [Rule],
}

/// All of them.
pub const BENCHMARKS: [&Benchmark; 14] = [
    &pope::POPE,
    &mme::MME,
    &hallusion::HALLUSIONBENCH,
    &mmstar::MMSTAR,
    &mmbench::MMBENCH_EN,
    &mmbench::MMBENCH_CN,
    &mmbench::CCBENCH,
    &scienceqa::SCIENCEQA_IMG,
    &seed::SEED_BENCH,
    &ai2d::AI2D,
    &realworldqa::REALWORLDQA,
    &gqa::GQA,
    &textvqa::TEXTVQA,
    &captions::CAPTIONS,
];

/// The benchmark of this name.
pub fn find(name: &str) -> Option<&'static Benchmark> {
    BENCHMARKS.into_iter().find(|benchmark| benchmark.name == name)
}

impl Benchmark {
    /// The rule of this name; the first when none is named.
    pub fn rule(&self, name: Option<&str>) -> Option<&'static Rule> {
        match name {
            None => self.rules.first(),
            Some(name) => self.rules.iter().find(|rule| rule.name == name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_benchmark_is_found_by_its_name_and_has_rules() {
        for benchmark in BENCHMARKS {
            assert_eq!(find(benchmark.name).unwrap().about, benchmark.about);
            assert!(benchmark.rule(None).is_some() && benchmark.rule(Some("no such")).is_none());
        }
        assert!(find("no-such").is_none());
    }
}
