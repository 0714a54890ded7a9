//! What a manifest says of `benchmark`.

use crate::evaluate::Generate;
use llavm_model::config::Dtype;
use llavm_model::device::DeviceName;
use serde::{Deserialize, Serialize};

/// Parameters of `benchmark`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AskBenchmark {
    /// Which benchmark, as `llavm score list` names it.
    pub name: String,
    /// Its files, in their order: TSV or Parquet, paths or patterns such as `hub:datasets/ORG/NAME/data/*.parquet`. Default: what
    /// `llavm fetch NAME` brings.
    #[serde(skip_serializing)]
    pub files: Vec<String>,
    /// Questions asked, from the first; 0 (default) for all.
    pub samples: usize,
    /// How answers are made.
    pub generate: Generate,
    /// Where to compute: `cpu` (default), `cuda`, `cuda:1` or `wgpu`; of several (`cuda:0,1`) the first.
    pub device: String,
    /// `f32`, `f16` or `bf16`. Default: f32 on the CPU, elsewhere what the model was trained in.
    pub dtype: Option<Dtype>,
    /// Replicates behind each confidence interval; 0 for none. Default 1000.
    pub bootstrap: usize,
    /// Wrong answers shown in `report.html`, as many of each category. Default 60.
    pub gallery: usize,
}

impl Default for AskBenchmark {
    fn default() -> Self {
        Self {
            name: String::new(),
            files: Vec::new(),
            samples: 0,
            generate: Generate::default(),
            device: DeviceName::Cpu.to_string(),
            dtype: None,
            bootstrap: 1000,
            gallery: 60,
        }
    }
}
