//! Event files as `TensorBoard` reads them: `TFRecord` frames around `tensorflow.Event` messages
//! (tensorflow/core/util/event.proto, framework/summary.proto; the fields used here).
//!
//! ```text
//! u64 length | u32 masked crc32c of the length | bytes | u32 masked crc32c of the bytes      little-endian
//! ```

use super::record::Entry;
use llavm_pipeline::StageError;
use prost::Message;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// `SessionLog.START`: what was logged of this step and later ones before does not count.
const START: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// An event file that grows.
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A new file in `folder` for a training that goes on after `step`.
    pub fn create(folder: &Path, step: u64) -> Result<Self, StageError> {
        fs::create_dir_all(folder).map_err(|cause| StageError::io(folder, cause))?;
        // A number behind the second: a run may be started again at once.
        let name = |n: u32| folder.join(format!("events.out.tfevents.{:010}.llavm.{n}", now() as u64));
        let mut number = 0;
        let (path, file) = loop {
            let path = name(number);
            match File::create_new(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(cause) => return Err(StageError::io(&path, cause)),
            }
        };
        let mut events = Self { path, file };
        let version = Event { file_version: Some("brain.Event:2".to_owned()), ..Event::at(0) };
        events.write(&version)?;
        events.write(&Event { session_log: Some(SessionLog { status: START }), ..Event::at(step + 1) })?;
        Ok(events)
    }

    /// Adds what one step measured, and how fast it was.
    pub fn add(&mut self, entry: &Entry, tokens_per_second: f64) -> Result<(), StageError> {
        let mut values = vec![
            ("train/loss", entry.loss),
            ("train/learning_rate", entry.lr),
            ("train/grad_norm", entry.grad_norm),
            ("speed/tokens_per_second", tokens_per_second),
        ];
        if let Some((loss, accuracy)) = entry.eval {
            values.extend([("eval/loss", loss), ("eval/token_accuracy", accuracy)]);
        }
        let value = |tag: &str, value: f64| Value { tag: tag.to_owned(), simple_value: Some(value as f32) };
        let mut values: Vec<Value> = values.into_iter().map(|(tag, number)| value(tag, number)).collect();
        values
            .extend(entry.benchmarks.iter().map(|(name, score)| value(&format!("benchmark/{name}"), *score)));
        let summary = Summary { value: values };
        self.write(&Event { summary: Some(summary), ..Event::at(entry.step) })
    }

    fn write(&mut self, event: &Event) -> Result<(), StageError> {
        let bytes = event.encode_to_vec();
        let length = (bytes.len() as u64).to_le_bytes();
        let frame = [&length[..], &masked(&length), &bytes, &masked(&bytes)].concat();
        self.file.write_all(&frame).map_err(|cause| StageError::io(&self.path, cause))
    }
}

impl Event {
    fn at(step: u64) -> Self {
        Self { wall_time: now(), step: step as i64, file_version: None, summary: None, session_log: None }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// `TFRecord`'s checksum: turned and shifted, so that a checksum of data that holds checksums is one too.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of a file, every checksum compared.
    fn read(path: &Path) -> Vec<Event> {
        let bytes = fs::read(path).unwrap();
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let (length, after) = rest.split_at(8);
            let size = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            assert_eq!(after[..4], masked(length));
            let data = &after[4..4 + size];
            assert_eq!(after[4 + size..8 + size], masked(data));
            events.push(Event::decode(data).unwrap());
            rest = &after[8 + size..];
        }
        events
    }

    #[test]
    fn what_is_written_parses_with_valid_checksums() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path(), 4).unwrap();
        let entry = Entry {
            step: 5,
            loss: 2.5,
            lr: 1e-4,
            eval: Some((2.25, 0.5)),
            benchmarks: vec![("pope".to_owned(), 0.75)],
            ..Entry::default()
        };
        file.add(&entry, 100.0).unwrap();
        let events = read(&file.path);
        assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
        assert_eq!((events[1].step, events[1].session_log.as_ref().unwrap().status), (5, START));
        let values = &events[2].summary.as_ref().unwrap().value;
        let of = |tag: &str| values.iter().find(|value| value.tag == tag).unwrap().simple_value.unwrap();
        assert_eq!((events[2].step, of("train/loss"), of("eval/loss")), (5, 2.5, 2.25));
        assert_eq!((events[2].step, of("benchmark/pope")), (5, 0.75));
    }

    #[test]
    fn the_checksum_is_that_of_tfrecord() {
        // tensorflow/core/lib/hash: crc32c of 32 zero bytes is 0x8a9136aa.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(u32::from_le_bytes(masked(&[0; 32])), 0x0fd7_fffa);
    }
}
