//! Before the first step on another device than the CPU: the first rows with the loaded weights on both.

use super::parameters::Train;
use super::setup::failed;
use llavm_model::config::PixelNorm;
use llavm_model::doctor::verdicts::{Verdicts, fingerprint};
use llavm_model::doctor::{DeviceUnderTest, Report, Subject, compare_first_batch};
use llavm_model::train::{MicroBatch, Trainer};
use llavm_pipeline::StageError;

impl Train {
    /// Refuses a device that computes another loss or other gradients of the first rows than the CPU. What was found is remembered for
    /// this device, program, model and rows.
    pub(super) fn compare_first(
        &self,
        trainer: &Trainer,
        norm: &PixelNorm,
        rows: &MicroBatch,
    ) -> Result<(), StageError> {
        let names = self.devices().map_err(failed)?;
        // The others are of the same kind.
        let Some(name) = names.names().first().copied() else { return Ok(()) };
        if !self.doctor || name.is_reference() {
            return Ok(());
        }
        let subject = DeviceUnderTest::open(name).map_err(failed)?;
        let key = self.first_key(&fingerprint(&subject.identity(), &[self.dtype]), rows);
        let verdicts = Verdicts::of_user();
        let compare =
            || compare_first_batch(&name.to_string(), trainer.model(), subject.rounds_products(), norm, rows);
        let Some(report) = verdicts.recall(&key).or_else(compare) else { return Ok(()) };
        // A cache that cannot be written only costs the next run a comparison.
        let _ = verdicts.remember(&key, &report);
        if report.passed() { Ok(()) } else { Err(wrong(&report)) }
    }

    fn first_key(&self, device: &str, rows: &MicroBatch) -> String {
        let of =
            (device, &self.qwen, &self.clip, &self.init_from, &self.trainable, &rows.input_ids, &rows.labels);
        blake3::hash(format!("first rows {of:?}").as_bytes()).to_hex().to_string()
    }
}

fn wrong(report: &Report) -> StageError {
    StageError::new(format!("the device computes something else than the CPU of the first rows:\n{report}")).help(
        "Use device = \"cpu\", another driver or a build without the feature `fusion`; doctor = false trains all the same.",
    )
}
