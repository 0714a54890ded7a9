//! One file of the web, at a fixed address and with a known MD5: the tables that VLMEvalKit publishes.
//!
//! In: address, digest, and where it goes. Out: the file, checked; resumed from `NAME.incomplete` when it was cut off. The digest
//! is what VLMEvalKit compares, too: it finds a cut or changed file, not one that was forged.

use super::client::Client;
use super::digest::Digest;
use super::download::{continues, incomplete, make_parent};
use super::event::{FetchEvent, Observer};
use super::fetch::Hub;
use super::fetch_error::FetchError;
use super::listing::RemoteFile;
use super::partial::Partial;
use super::source::Source;
use super::trouble::{Trouble, header};
use std::fs;
use std::io::Read;
use std::path::Path;
use ureq::Body;
use ureq::http::Response;

/// Bytes read from the network at once.
const PIECE: usize = 256 << 10;

/// A file and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct WebFile<'a> {
    /// Where it is.
    pub address: &'a str,
    /// 32 hexadecimal digits.
    pub md5: &'a str,
    /// Where it goes.
    pub path: &'a Path,
}

impl Hub {
    /// Brings a file of the web to its place, unless it is there; the bytes that arrived.
    pub fn fetch_file(&self, file: &WebFile<'_>, observer: &dyn Observer) -> Result<u64, FetchError> {
        file.fetch(&self.client(Source::HuggingFace)?, observer)
    }
}

impl WebFile<'_> {
    fn fetch(&self, client: &Client, observer: &dyn Observer) -> Result<u64, FetchError> {
        let digest = Digest::Md5(self.md5.to_owned());
        let path = incomplete(self.path);
        let wrong = |error| FetchError::writing(&path, 0, error);
        if self.path.is_file() && digest.is_of(self.path, 0).map_err(wrong)? {
            return Ok(0);
        }
        make_parent(&path).map_err(wrong)?;
        let mut partial = Partial::open(&path, u64::MAX, Some(&digest)).map_err(wrong)?;
        let mut arrived = 0;
        loop {
            let resumed = partial.len() > 0;
            arrived += self.receive(client, &mut partial, observer)?;
            let found = partial.finish().map_err(wrong)?.unwrap_or_default();
            if found == self.md5 {
                fs::rename(&path, self.path).map_err(wrong)?;
                return Ok(arrived);
            }
            if !resumed {
                fs::remove_file(&path).map_err(wrong)?;
                return Err(self.changed(found));
            }
            // The beginning, of an earlier download, may be what is wrong.
            partial.clear().map_err(wrong)?;
        }
    }

    fn changed(&self, found: String) -> FetchError {
        FetchError::WrongDigest {
            repository: self.address.to_owned(),
            file: self.name(),
            found,
            expected: self.md5.to_owned(),
        }
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Asks for the rest of the file until all of it is there; the bytes that arrived.
    fn receive(
        &self,
        client: &Client,
        partial: &mut Partial,
        observer: &dyn Observer,
    ) -> Result<u64, FetchError> {
        let mut patience = client.patience();
        let mut arrived = 0;
        loop {
            let before = partial.len();
            let trouble = match client.get(self.address, before) {
                Ok(response) => self.copy(response, partial, observer)?,
                // Nothing is left: the file ends where the download was cut.
                Err(Trouble::Status { status: 416, .. }) if before > 0 => None,
                Err(trouble) => Some(trouble),
            };
            arrived += partial.len().saturating_sub(before);
            let Some(trouble) = trouble else { return Ok(arrived) };
            if partial.len() > before {
                patience.progress();
            }
            let pause = patience.after(trouble.clone()).map_err(|trouble| self.refused(trouble))?;
            observer.event(&FetchEvent::Waiting { what: self.address, why: &trouble, pause });
            std::thread::sleep(pause);
        }
    }

    fn refused(&self, trouble: Trouble) -> FetchError {
        let advice = "Check the connection and HTTPS_PROXY, or fetch the benchmark from the hub: `llavm fetch NAME`. What has arrived is kept.";
        FetchError::Refused { what: self.address.to_owned(), trouble, advice: advice.to_owned() }
    }

    /// What went wrong before the last byte.
    fn copy(
        &self,
        response: Response<Body>,
        partial: &mut Partial,
        observer: &dyn Observer,
    ) -> Result<Option<Trouble>, FetchError> {
        let wrong = |error| FetchError::writing(self.path, 0, error);
        if partial.len() > 0 && !continues(&response, partial.len()) {
            partial.clear().map_err(wrong)?;
        }
        let length: Option<u64> = header(&response, "content-length").and_then(|text| text.parse().ok());
        let size = length.map(|length| partial.len() + length);
        let file = RemoteFile { path: self.name(), size: size.unwrap_or(0), etag: self.md5.to_owned() };
        observer.event(&FetchEvent::Started { file: &file, have: partial.len() });
        let mut body = response.into_body().into_reader();
        let mut piece = vec![0; PIECE];
        loop {
            let cut = || Trouble::Cut { at: (partial.len(), size.unwrap_or(0)) };
            match body.read(&mut piece) {
                Ok(0) if size.is_some_and(|size| partial.len() < size) => return Ok(Some(cut())),
                Ok(0) => break,
                Ok(read) => {
                    partial.write(&piece[..read]).map_err(wrong)?;
                    observer.event(&FetchEvent::Bytes { file: &file, count: read as u64 });
                }
                Err(_) => return Ok(Some(cut())),
            }
        }
        observer.event(&FetchEvent::Done { file: &file });
        Ok(None)
    }
}
