//! The Parquet reader on untrusted input.

use llavm_model::untrusted;
use parquet::errors::ParquetError;

/// Some corrupt pages make the decoder panic instead of returning an error.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match untrusted::guarded(work) {
        Some(result) => result.map_err(|cause| cause.to_string()),
        None => Err("the Parquet decoder could not read these bytes".to_owned()),
    }
}
