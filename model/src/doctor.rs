//! Is a device right? The same small fixed model on the device and on the CPU, compared.
//!
//! In: a device, or a stand-in for one. Out: a [`Report`] of every comparison with its tolerance, and a
//! verdict. Burn's GPU backends have open reports of silently wrong results (issues 5162: gradients of a
//! frozen model are zero; 5257, 5079, 4366: cached decoding and training go wrong under kernel fusion), so
//! that no job trusts a device before this has passed on it. [`verdicts`] remembers what passed.

mod cases;
mod first_batch;
mod fixed_model;
mod outputs;
pub mod verdicts;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::Dtype;

pub use cases::Case;
pub use first_batch::compare_first_batch;
pub use outputs::{DeviceUnderTest, Outputs, Subject, run_model};

/// Largest difference of a right device in f32: sums in another order, over two layers.
const TOLERANCE_F32: f32 = 1e-4;
/// Largest difference of a right device in f32 whose products round to TF32: an eighth of what bf16 is away, and room.
const TOLERANCE_TF32: f32 = 5e-3;
/// The same for gradients.
const TOLERANCE_TF32_GRADIENT: f32 = 1e-2;
/// Largest difference of a right device with 8 (bf16) or 11 (f16) bits of mantissa, from the CPU in f32. The
/// CPU's own bf16 is 0.018 away on this model.
const TOLERANCE_HALF: f32 = 0.05;
/// The same for gradients, whose rounding passes through the model twice; the CPU's bf16 is 0.034 away.
const TOLERANCE_HALF_GRADIENT: f32 = 0.1;

/// One comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What was compared.
    pub name: String,
    /// What the device computed in.
    pub dtype: Dtype,
    /// `max |device - cpu| / max |cpu|`; infinite when the device gave NaN or another number of values.
    pub difference: f32,
    /// The largest difference of a right device.
    pub tolerance: f32,
}

/// All comparisons of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The device's name.
    pub device: String,
    /// The comparisons, in the order in which a forward and a backward pass come by.
    pub checks: Vec<Check>,
    /// Why the device could not run at all, when it could not.
    pub failure: Option<String>,
}

impl Check {
    /// Whether the difference is within the tolerance.
    pub fn passed(&self) -> bool {
        self.difference <= self.tolerance
    }
}

impl Report {
    /// Whether the device may be trusted.
    pub fn passed(&self) -> bool {
        self.failure.is_none() && self.checks.iter().all(Check::passed)
    }
}

/// Compares `subject` in each of `dtypes` with the CPU in f32.
pub fn run_checks(subject: &dyn Subject, dtypes: &[Dtype]) -> Report {
    let mut report = Report { device: subject.name(), checks: Vec::new(), failure: None };
    let healthy = match DeviceUnderTest::cpu().outputs(Dtype::F32) {
        Ok(healthy) => healthy,
        Err(failure) => return Report { failure: Some(failure), ..report },
    };
    for dtype in dtypes {
        match subject.outputs(*dtype) {
            Ok(outputs) => {
                report.checks.extend(compare(*dtype, subject.rounds_products(), &outputs, &healthy));
            }
            Err(failure) => return Report { failure: Some(failure), ..report },
        }
    }
    report
}

/// Every symptom beside the healthy one.
fn compare(dtype: Dtype, rounds: bool, outputs: &Outputs, healthy: &Outputs) -> Vec<Check> {
    let values = |got: &[f32], right: &[f32]| difference(got, right);
    let check = |name: &str, difference: f32, tolerance: f32| Check {
        name: name.to_owned(),
        dtype,
        difference,
        tolerance,
    };
    let (forward, backward) = tolerances(dtype, rounds);
    let (got, right) = (outputs, healthy);
    let mut checks = vec![
        check("image features", values(&got.features, &right.features), forward),
        check("hidden states", values(&got.hidden, &right.hidden), forward),
        check("loss", values(&[got.loss], &[right.loss]), forward),
        check("projector gradients", gradients(&got.projector, &right.projector), backward),
        check("projector and LoRA gradients", gradients(&got.lora, &right.lora), backward),
        check("full decoding", values(&got.uncached, &right.uncached), forward),
        check("cached decoding", values(&got.cached, &right.uncached), forward),
    ];
    checks.extend(right.cases.iter().map(|case| {
        let same = got.cases.iter().find(|same| same.name == case.name);
        let apart = same.map_or(f32::INFINITY, |same| values(&same.values, &case.values));
        check(case.name, apart, if case.backward { backward } else { forward })
    }));
    checks
}

/// Largest differences of a right device on the way forward, and of gradients.
fn tolerances(dtype: Dtype, rounds_products: bool) -> (f32, f32) {
    match dtype {
        Dtype::F32 if rounds_products => (TOLERANCE_TF32, TOLERANCE_TF32_GRADIENT),
        Dtype::F32 => (TOLERANCE_F32, TOLERANCE_F32),
        Dtype::F16 | Dtype::Bf16 => (TOLERANCE_HALF, TOLERANCE_HALF_GRADIENT),
    }
}

/// The largest difference of any parameter's gradient.
fn gradients(got: &[(String, Vec<f32>)], right: &[(String, Vec<f32>)]) -> f32 {
    if !got.iter().map(|(key, _)| key).eq(right.iter().map(|(key, _)| key)) {
        return f32::INFINITY;
    }
    got.iter().zip(right).map(|((_, got), (_, right))| difference(got, right)).fold(0.0, f32::max)
}

/// `max |got - right| / max |right|`.
fn difference(got: &[f32], right: &[f32]) -> f32 {
    if got.len() != right.len() || got.iter().any(|value| !value.is_finite()) {
        return f32::INFINITY;
    }
    let apart = got.iter().zip(right).map(|(got, right)| (got - right).abs()).fold(0.0, f32::max);
    apart / right.iter().map(|value| value.abs()).fold(f32::MIN_POSITIVE, f32::max)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} against the CPU in f32", self.device)?;
        if !self.checks.is_empty() {
            writeln!(f, "  {:<30} {:<5} {:>10} {:>10}", "check", "dtype", "difference", "tolerance")?;
        }
        for check in &self.checks {
            let mark = if check.passed() { "ok" } else { "WRONG" };
            let (difference, tolerance) = (check.difference, check.tolerance);
            let dtype = check.dtype.to_string();
            writeln!(f, "  {:<30} {dtype:<5} {difference:>10.1e} {tolerance:>10.1e}  {mark}", check.name)?;
        }
        if let Some(failure) = &self.failure {
            writeln!(f, "  did not run: {failure}")?;
        }
        let verdict = if self.passed() { "right" } else { "WRONG: do not trust its results" };
        write!(f, "verdict: {verdict}")
    }
}
