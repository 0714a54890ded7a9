//! What doctor found, remembered: an examination takes minutes on some devices and jobs start often.
//!
//! | changes | then |
//! |---|---|
//! | device, card or driver | examined again |
//! | this binary (any byte of it) | examined again |
//! | dtypes asked for | examined again |
//! | anything else | the remembered report stands |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use serde::{Deserialize, Serialize};

use super::{DeviceUnderTest, Report, Subject, run_checks};
use crate::config::Dtype;
use crate::device::{DeviceError, DeviceName};

/// Why a device may not be used.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// There is no such device in this binary.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It computes something else than the CPU.
    #[error(
        "device {device} fails its examination, so nothing is run on it:\n{report}\nUse `--device cpu`, \
         another driver or a build without the feature `fusion`; `--no-doctor` runs all the same."
    )]
    Wrong {
        /// The device.
        device: DeviceName,
        /// The examination.
        report: Box<Report>,
    },
}

/// Reports by fingerprint, in one JSON file.
#[derive(Clone, Debug)]
pub struct Verdicts {
    path: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
struct Remembered {
    reports: BTreeMap<String, Report>,
}

impl Verdicts {
    /// Verdicts kept in the file `path`, which need not exist.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Verdicts of this user: `llavm/doctor.json` in `XDG_CACHE_HOME` or `~/.cache`.
    pub fn of_user() -> Self {
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        Self::at(cache.unwrap_or_else(env::temp_dir).join("llavm").join("doctor.json"))
    }

    /// The report remembered under `fingerprint`. An unreadable file remembers nothing.
    pub fn recall(&self, fingerprint: &str) -> Option<Report> {
        self.read().reports.remove(fingerprint)
    }

    /// Remembers `report` under `fingerprint`.
    pub fn remember(&self, fingerprint: &str, report: &Report) -> io::Result<()> {
        let mut remembered = self.read();
        remembered.reports.insert(fingerprint.to_owned(), report.clone());
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        // Renamed into place: several jobs may start at once.
        let temporary = self.path.with_extension(format!("{}.tmp", std::process::id()));
        fs::write(&temporary, serde_json::to_vec_pretty(&remembered)?)?;
        fs::rename(&temporary, &self.path)
    }

    fn read(&self) -> Remembered {
        let text = fs::read(&self.path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// Examines the device called `name` in `dtypes`, or recalls what was found; `Ok` when it may be trusted. The
/// CPU is the reference and always is.
pub fn require_healthy(name: DeviceName, dtypes: &[Dtype], verdicts: &Verdicts) -> Result<(), DoctorError> {
    if name.is_reference() {
        return Ok(());
    }
    let subject = DeviceUnderTest::open(name)?;
    let fingerprint = fingerprint(&subject.identity(), dtypes);
    match recall_or_check(&subject, dtypes, &fingerprint, verdicts) {
        report if report.passed() => Ok(()),
        report => Err(DoctorError::Wrong { device: name, report: Box::new(report) }),
    }
}

fn recall_or_check(
    subject: &dyn Subject,
    dtypes: &[Dtype],
    fingerprint: &str,
    verdicts: &Verdicts,
) -> Report {
    if let Some(report) = verdicts.recall(fingerprint) {
        return report;
    }
    let report = run_checks(subject, dtypes);
    // A device that did not run at all may be back after the next start; and a cache that cannot be
    // written only costs the next job an examination.
    if report.failure.is_none() {
        let _ = verdicts.remember(fingerprint, &report);
    }
    report
}

/// Device identity, dtypes and the bytes of this binary as one name.
pub fn fingerprint(identity: &str, dtypes: &[Dtype]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(identity.as_bytes());
    for dtype in dtypes {
        hasher.update(dtype.hf_name().as_bytes());
    }
    let binary = env::current_exe().and_then(fs::File::open);
    if let Ok(binary) = binary {
        let _ = hasher.update_reader(binary);
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::doctor::Outputs;

    /// Counts its examinations.
    struct Counting(Cell<usize>);

    impl Subject for Counting {
        fn name(&self) -> String {
            "counting".to_owned()
        }

        fn outputs(&self, dtype: Dtype) -> Result<Outputs, String> {
            self.0.set(self.0.get() + 1);
            DeviceUnderTest::cpu().outputs(dtype)
        }
    }

    #[test]
    fn a_device_is_examined_once_per_card_dtypes_and_binary() {
        let folder = tempfile::tempdir().unwrap();
        let verdicts = Verdicts::at(folder.path().join("cache/doctor.json"));
        let subject = Counting(Cell::new(0));
        let visit = |identity: &str, dtypes: &[Dtype]| {
            assert!(recall_or_check(&subject, dtypes, &fingerprint(identity, dtypes), &verdicts).passed());
            subject.0.get()
        };
        assert_eq!(visit("card 1", &[Dtype::F32]), 1);
        assert_eq!(visit("card 1", &[Dtype::F32]), 1);
        assert_eq!(visit("card 2", &[Dtype::F32]), 2);
        assert_eq!(visit("card 1", &[Dtype::F32, Dtype::Bf16]), 4);
    }

    #[test]
    fn an_unreadable_file_remembers_nothing_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("doctor.json");
        fs::write(&path, "{ not json").unwrap();
        let verdicts = Verdicts::at(&path);
        assert_eq!(verdicts.recall("a"), None);
        let report = Report { device: "cuda".to_owned(), checks: Vec::new(), failure: None };
        verdicts.remember("a", &report).unwrap();
        assert_eq!(verdicts.recall("a"), Some(report));
    }

    #[test]
    fn the_cpu_needs_no_examination() {
        let nowhere = Verdicts::at("/nonexistent/doctor.json");
        require_healthy(DeviceName::Cpu, &[Dtype::F32], &nowhere).unwrap();
    }
}
