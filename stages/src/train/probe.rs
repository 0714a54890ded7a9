//! Benchmarks between steps: some questions of each, asked of the model as it is at that step.
//!
//! The questions are spread evenly over the benchmark's files, so that all of its kinds are among them; they and their images are read
//! once. What is recorded is the first number of the benchmark's first rule.

use super::parameters::EvalBenchmark;
use crate::benchmarks::asking::Asking;
use crate::benchmarks::files::Image;
use crate::benchmarks::inputs::{self, Inputs};
use crate::benchmarks::item::Item;
use crate::benchmarks::predictions::Paired;
use crate::benchmarks::{Benchmark, find, score};
use llavm_model::generate::assistant::Assistant;
use llavm_model::processor::Processor;
use llavm_model::vlm::Vlm;
use llavm_pipeline::StageError;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Questions at once.
const BATCH: usize = 32;

/// A benchmark that is asked.
struct Probe {
    benchmark: &'static Benchmark,
    items: Vec<Item>,
    images: Vec<Image>,
    max_new_tokens: usize,
}

/// All of them.
#[derive(Default)]
pub struct Probes {
    probes: Vec<Probe>,
    processor: Option<Arc<Processor>>,
}

impl Probes {
    /// Reads the questions; `processor` is the model's.
    pub fn open(asked: &[EvalBenchmark], processor: Processor) -> Result<Self, StageError> {
        let probes = asked.iter().map(Probe::open).collect::<Result<_, _>>()?;
        Ok(Self { probes, processor: Some(Arc::new(processor)) })
    }

    /// The score of each benchmark, by name.
    pub fn ask(&self, model: Vlm, pool: &rayon::ThreadPool) -> Result<Vec<(String, f64)>, StageError> {
        let Some(processor) = self.processor.clone().filter(|_| !self.probes.is_empty()) else {
            return Ok(Vec::new());
        };
        let assistant = Assistant { system: processor.system().map(str::to_owned), model, processor };
        self.probes.iter().map(|probe| probe.ask(&assistant, pool)).collect()
    }
}

impl Probe {
    fn open(asked: &EvalBenchmark) -> Result<Self, StageError> {
        let unknown = || StageError::new(format!("there is no benchmark `{}`", asked.name));
        let benchmark = find(&asked.name).ok_or_else(unknown)?;
        let paths = Inputs { name: &asked.name, files: &asked.files }.paths()?;
        let items = spread(inputs::items(&paths)?, asked.samples);
        let wanted: BTreeSet<&String> = items.iter().flat_map(|item| &item.images).collect();
        let mut images: Vec<Image> = Vec::new();
        let mut seen = BTreeSet::new();
        inputs::images(&paths, &mut |image| {
            if wanted.contains(&image.digest) && seen.insert(image.digest.clone()) {
                images.push(image);
            }
            Ok(())
        })?;
        Ok(Self { benchmark, items, images, max_new_tokens: asked.max_new_tokens })
    }

    fn ask(&self, assistant: &Assistant, pool: &rayon::ThreadPool) -> Result<(String, f64), StageError> {
        let asking = Asking {
            benchmark: self.benchmark,
            items: &self.items,
            assistant,
            max_new_tokens: self.max_new_tokens,
            batch_size: BATCH,
            kept: None,
            pool,
            progress: &|_, _| Ok(()),
        };
        let said = asking.ask(&|take| self.images.iter().cloned().try_for_each(take))?;
        let mut paired = Paired::default();
        let mut rejected = None;
        for (item, said) in self.items.iter().zip(said) {
            match said {
                Ok(answer) => {
                    paired.items.push(item.clone());
                    paired.answers.push(answer);
                }
                Err(reason) => rejected = Some(reason),
            }
        }
        let nothing = || {
            let reason = rejected.unwrap_or_else(|| "it has no questions".to_owned());
            StageError::new(format!("{}: no question could be asked: {reason}", self.benchmark.name))
                .help("Name all files of the benchmark in `eval_benchmarks`.")
        };
        let (_, value) = score::headline(self.benchmark, &paired).ok_or_else(nothing)?;
        Ok((self.benchmark.name.to_owned(), value))
    }
}

/// `count` items, evenly spread; all where there are no more. Those about one image stay together where their file has them so.
fn spread(items: Vec<Item>, count: usize) -> Vec<Item> {
    let all = items.len();
    if all <= count {
        return items;
    }
    let chosen: BTreeSet<usize> = (0..count).map(|n| n * all / count).collect();
    items.into_iter().enumerate().filter(|(at, _)| chosen.contains(at)).map(|(_, item)| item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_spread_over_all_there_are() {
        let items = |count: usize| -> Vec<Item> {
            (0..count).map(|n| Item { index: n.to_string(), ..Item::default() }).collect()
        };
        let names = |items: Vec<Item>| -> Vec<String> { items.into_iter().map(|item| item.index).collect() };
        assert_eq!(names(spread(items(10), 4)), ["0", "2", "5", "7"]);
        assert_eq!(spread(items(3), 4).len(), 3);
    }
}
