//! Whole files to and from a bucket: in parts, several at once, so that memory holds a few of them.

use super::client::{Client, Part};
use super::face::Pending;
use crate::spec::error::StageError;
use crate::store::files::{at, make_folder};
use bytes::Bytes;
use object_store::{MultipartUpload, ObjectStoreExt, PutMode, PutPayload};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

/// Parts on their way at once.
const AHEAD: usize = 4;

/// The most parts that a server takes.
const MOST_PARTS: u64 = 9_000;

/// Uploads a file; what lies under the name is replaced once everything is there. `part`: bytes sent at once.
pub fn upload(client: &Client, from: &Path, key: &str, part: u64) -> Result<(), StageError> {
    let mut file = at(from, File::open(from))?;
    let size = at(from, file.metadata())?.len();
    if size <= part {
        let mut bytes = Vec::new();
        at(from, file.read_to_end(&mut bytes))?;
        client.put(key, bytes.into(), PutMode::Overwrite)?;
        return Ok(());
    }
    let (store, to) = (Arc::clone(&client.store), client.key(key)?);
    let begun = client.face.wait(async move { store.put_multipart(&to).await });
    let mut upload = begun.map_err(|error| client.failed(error))?;
    let part = part.max(size.div_ceil(MOST_PARTS));
    match send_parts(client, from, &mut file, upload.as_mut(), part) {
        Ok(()) => {
            let completed = client.face.wait(async move { upload.complete().await });
            completed.map(drop).map_err(|error| client.failed(error))
        }
        Err(cause) => {
            // Parts that stay behind are never seen, and the bucket's rules remove them.
            let _ = client.face.wait(async move { upload.abort().await });
            Err(cause)
        }
    }
}

fn send_parts(
    client: &Client,
    from: &Path,
    file: &mut File,
    upload: &mut dyn MultipartUpload,
    part: u64,
) -> Result<(), StageError> {
    let mut sent: VecDeque<Pending<()>> = VecDeque::new();
    loop {
        let mut bytes = Vec::new();
        at(from, file.take(part).read_to_end(&mut bytes))?;
        let is_last = (bytes.len() as u64) < part;
        if !bytes.is_empty() {
            sent.push_back(client.face.begin(upload.put_part(PutPayload::from(Bytes::from(bytes)))));
        }
        while sent.len() >= AHEAD || is_last && !sent.is_empty() {
            let Some(first) = sent.pop_front() else { break };
            first.wait().map_err(|error| client.failed(error))?;
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Downloads an object that is not empty into a new file; false when it is not there.
pub fn download(client: &Client, key: &str, to: &Path, part: u64) -> Result<bool, StageError> {
    let first = client.begin_part(key, 0..part)?.wait();
    let Some(Part { bytes, size }) = client.there(first)? else { return Ok(false) };
    make_folder(to.parent().unwrap_or(to))?;
    let mut file = at(to, File::create_new(to))?;
    at(to, file.write_all(&bytes))?;
    let (mut asked, mut ahead) = (bytes.len() as u64, VecDeque::new());
    loop {
        while ahead.len() < AHEAD && asked < size {
            let end = size.min(asked + part);
            ahead.push_back(client.begin_part(key, asked..end)?);
            asked = end;
        }
        let Some(next) = ahead.pop_front() else { return Ok(true) };
        let part = next.wait().map_err(|error| client.failed(error))?;
        at(to, file.write_all(&part.bytes))?;
    }
}
