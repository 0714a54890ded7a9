//! Where benchmarks are: the data sets that lmms-eval's tasks name (`dataset_path`, `dataset_name`, `test_split`), and the tables that
//! VLMEvalKit downloads (`DATASET_URL`, `DATASET_MD5`). Both were read in August 2026; `llavm fetch` asks the hub for sizes of today.

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// As `llavm fetch` names it.
    pub name: &'static str,
    /// The benchmark whose questions it has.
    pub benchmark: &'static str,
    /// The data set on the Hugging Face hub.
    pub hub: &'static str,
    /// Which of its files.
    pub include: &'static [&'static str],
    /// Questions.
    pub rows: u32,
    /// Megabytes of those files, where the hub's pages said; of the others `llavm fetch --dry-run` asks.
    pub megabytes: Option<u32>,
    /// VLMEvalKit's table.
    pub tsv: Option<Tsv>,
}

/// A table of VLMEvalKit.
#[derive(Clone, Copy, Debug)]
pub struct Tsv {
    /// Where it is.
    pub address: &'static str,
    /// Of its content, 32 hexadecimal digits.
    pub md5: &'static str,
}

const fn on(
    name: &'static str,
    hub: &'static str,
    include: &'static [&'static str],
    rows: u32,
    megabytes: Option<u32>,
) -> Source {
    Source { name, benchmark: name, hub, include, rows, megabytes, tsv: None }
}

impl Source {
    const fn tsv(mut self, address: &'static str, md5: &'static str) -> Self {
        self.tsv = Some(Tsv { address, md5 });
        self
    }

    const fn of(mut self, benchmark: &'static str) -> Self {
        self.benchmark = benchmark;
        self
    }

    /// The files as a manifest names them.
    pub fn patterns(&self) -> Vec<String> {
        self.include.iter().map(|include| format!("{}/{include}", self.hub)).collect()
    }
}

impl Tsv {
    /// The file's name.
    pub fn file(&self) -> &'static str {
        self.address.rsplit('/').next().unwrap_or(self.address)
    }
}

/// All of them, a line each.
#[rustfmt::skip]
pub const SOURCES: [Source; 15] = [
    on("pope", "hub:datasets/lmms-lab-encoder/POPE", &["data/test-*"], 9_000, Some(255)).tsv("https://opencompass.openxlab.space/utils/VLMEval/POPE.tsv", "c12f5acb142f2ef1f85a26ba2fbe41d5"),
    on("mme", "hub:datasets/lmms-lab-encoder/MME", &["data/test-*"], 2_374, Some(865)).tsv("https://opencompass.openxlab.space/utils/VLMEval/MME.tsv", "b36b43c3f09801f5d368627fb92187c3"),
    on("hallusionbench", "hub:datasets/lmms-lab-encoder/HallusionBench", &["data/image-*"], 951, Some(147)).tsv("https://opencompass.openxlab.space/utils/VLMEval/HallusionBench.tsv", "0c23ac0dc9ef46832d7a24504f2a0c7c"),
    on("mmstar", "hub:datasets/Lin-Chen/MMStar", &["mmstar.parquet"], 1_500, Some(42)).tsv("https://opencompass.openxlab.space/utils/VLMEval/MMStar.tsv", "e1ecd2140806c1b1bbf54b43372efb9e"),
    on("mmbench-en", "hub:datasets/lmms-lab-encoder/MMBench", &["en/dev-*"], 4_329, Some(97)).tsv("https://opencompass.openxlab.space/utils/benchmarks/MMBench/MMBench_DEV_EN.tsv", "b6caf1133a01c6bb705cf753bb527ed8"),
    on("mmbench-cn", "hub:datasets/lmms-lab-encoder/MMBench", &["cn/dev-*"], 4_329, Some(97)).tsv("https://opencompass.openxlab.space/utils/benchmarks/MMBench/MMBench_DEV_CN.tsv", "08b8fc3324a5ed74155350f57be69fbd"),
    on("ccbench", "hub:datasets/lmms-lab-encoder/MMBench", &["cc/test-*"], 2_040, Some(52)).tsv("https://opencompass.openxlab.space/utils/VLMEval/CCBench.tsv", "f5dde47f24dc5a6fb6e595b409b466ac"),
    on("scienceqa-img", "hub:datasets/lmms-lab-encoder/ScienceQA", &["ScienceQA-IMG/test-*"], 2_017, Some(130)).tsv("https://opencompass.openxlab.space/utils/benchmarks/ScienceQA/ScienceQA_TEST.tsv", "e42e9e00f9c59a80d8a5db35bc32b71f"),
    on("seed-bench", "hub:datasets/lmms-lab-encoder/SEED-Bench", &["data/test-*"], 17_990, None).tsv("https://opencompass.openxlab.space/utils/benchmarks/SEEDBench/SEEDBench_IMG.tsv", "68017231464752261a2526d6ca3a10c0"),
    on("ai2d", "hub:datasets/lmms-lab-encoder/ai2d", &["data/test-*"], 3_088, None).tsv("https://opencompass.openxlab.space/utils/VLMEval/AI2D_TEST.tsv", "0f593e0d1c7df9a3d69bf1f947e71975"),
    on("realworldqa", "hub:datasets/lmms-lab-encoder/RealWorldQA", &["data/test-*"], 765, Some(678)).tsv("https://opencompass.openxlab.space/utils/VLMEval/RealWorldQA.tsv", "4de008f55dc4fd008ca9e15321dc44b7"),
    on("gqa", "hub:datasets/lmms-lab-encoder/GQA", &["testdev_balanced_instructions/*", "testdev_balanced_images/*"], 12_578, Some(68)).tsv("https://opencompass.openxlab.space/utils/VLMEval/GQA_TestDev_Balanced.tsv", "99b62f22e224d9b2f32dcbe41359d1c9"),
    on("textvqa-val", "hub:datasets/lmms-lab-encoder/textvqa", &["data/validation-*"], 5_000, Some(920)).tsv("https://opencompass.openxlab.space/utils/VLMEval/TextVQA_VAL.tsv", "b233b31f551bbf4056f2f955da3a92cd"),
    on("coco-captions", "hub:datasets/lmms-lab-encoder/COCO-Caption2017", &["data/val-*"], 5_000, Some(815)).of("captions").tsv("https://opencompass.openxlab.space/utils/VLMEval/COCO_VAL.tsv", "72a5079dead060269ac222c5aa5128af"),
    on("flickr30k-captions", "hub:datasets/lmms-lab-encoder/flickr30k", &["data/test-*"], 31_783, None).of("captions"),
];

/// The lines of a benchmark.
pub fn of(benchmark: &str) -> impl Iterator<Item = &'static Source> {
    SOURCES.iter().filter(move |source| source.benchmark == benchmark)
}

/// The line of this name.
pub fn find(name: &str) -> Option<&'static Source> {
    SOURCES.iter().find(|source| source.name == name)
}

/// The table whose file has this name, whatever its case.
pub fn table(file: &str) -> Option<Tsv> {
    SOURCES.iter().filter_map(|source| source.tsv).find(|tsv| tsv.file().eq_ignore_ascii_case(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmarks::BENCHMARKS;
    use std::path::Path;

    #[test]
    fn every_benchmark_has_a_line_and_every_line_a_benchmark() {
        for benchmark in BENCHMARKS {
            assert!(SOURCES.iter().any(|source| source.benchmark == benchmark.name), "{}", benchmark.name);
        }
        for source in &SOURCES {
            assert!(BENCHMARKS.iter().any(|known| known.name == source.benchmark), "{}", source.name);
            assert!(source.hub.starts_with("hub:datasets/") && source.rows > 0 && !source.include.is_empty());
            let whole = |tsv: Tsv| {
                Path::new(tsv.file()).extension().is_some_and(|kind| kind == "tsv") && tsv.md5.len() == 32
            };
            assert!(source.tsv.is_none_or(whole), "{}", source.name);
        }
        assert_eq!(table("mmbench_dev_en.tsv").unwrap().file(), "MMBench_DEV_EN.tsv");
        assert!(find("popp").is_none() && table("pope").is_none());
    }
}
