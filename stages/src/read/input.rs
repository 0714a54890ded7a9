//! The bytes of a raw file as its format wants them: unpacked where the file is packed, in UTF-8 where it is text in another encoding.
//!
//! Packed files are known by their first bytes, not by their name. They cannot be read from the middle, so they are unpacked once, when
//! their bytes are first wanted, into a file without a name that is gone with its last reader.

use super::section::Section;
use encoding_rs::{CoderResult, Encoding, UTF_8};
use flate2::bufread::MultiGzDecoder;
use llavm_model::magic::{Content, PEEKED};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{Digest, OpenContext, ReadThrough};
use llavm_pipeline::storage::remote::{RemoteFile, is_remote};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes read or written at once while unpacking.
const BUFFER: usize = 1 << 18;

/// A raw file.
#[derive(Debug)]
pub struct Input {
    path: PathBuf,
    packing: Option<Packing>,
    encoding: Option<&'static Encoding>,
    /// Where it is unpacked to.
    scratch: PathBuf,
    unpacked: Mutex<Option<Arc<File>>>,
}

/// What is looked for in the bytes of a file.
pub type Find<'a> = dyn Fn(&Section) -> io::Result<Vec<u8>> + Sync + 'a;

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zstd,
}

impl Input {
    /// `encoding` is that of a text file; `None` for UTF-8 and for files that are no text. What is unpacked lies in the folder
    /// `scratch` while it is read.
    pub fn open(path: &Path, encoding: Option<&'static Encoding>, scratch: PathBuf) -> io::Result<Self> {
        let packing = match peek(path)? {
            Some(Content::Gzip) => Some(Packing::Gzip),
            Some(Content::Zstd) => Some(Packing::Zstd),
            _ => None,
        };
        let encoding = encoding.filter(|encoding| *encoding != UTF_8);
        Ok(Self { path: path.to_owned(), packing, encoding, scratch, unpacked: Mutex::default() })
    }

    /// What an error of reading it means: that of a packed file, or of text in another encoding than stated, concerns its content.
    pub fn failed<T>(&self, cause: io::Error) -> Result<Result<T, String>, StageError> {
        let is_content = matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
            || cause.kind() == io::ErrorKind::UnexpectedEof;
        match self.packing {
            Some(packing) if is_content || cause.raw_os_error().is_none() => {
                Ok(Err(format!("the {packing:?} file is damaged or cut short: {cause}").to_lowercase()))
            }
            None if self.encoding.is_some() && is_content => Ok(Err(cause.to_string())),
            _ => Err(StageError::io(&self.path, cause)),
        }
    }

    /// What `find` sees in the bytes, remembered by the file's content: a packed file is not unpacked again for what is known of it. The
    /// inner error says why the bytes cannot be had.
    pub fn remembered(
        &self,
        what: &str,
        context: &dyn OpenContext,
        find: &Find<'_>,
    ) -> Result<Result<Vec<u8>, String>, StageError> {
        let digest = context.file_digest(&self.path)?;
        self.remembered_of(what, context, digest, &mut || self.section().and_then(|file| find(&file)))
    }

    /// [`Input::remembered`] for what reads the file to its end: where its digest is not known, it is hashed meanwhile.
    pub fn remembered_of_all(
        &self,
        what: &str,
        context: &dyn OpenContext,
        find: &Find<'_>,
    ) -> Result<Result<Vec<u8>, String>, StageError> {
        if self.packing.is_some() || self.encoding.is_some() {
            return self.remembered(what, context, find);
        }
        let mut found = None;
        let mut pass =
            |file: &Arc<ReadThrough>| found = Some(Section::through(file).and_then(|file| find(&file)));
        let digest = context.file_digest_reading(&self.path, &mut pass)?;
        let again = || self.section().and_then(|file| find(&file));
        self.remembered_of(what, context, digest, &mut || found.take().unwrap_or_else(again))
    }

    /// What only the first bytes decide. Of a file that is not packed it is looked up each time, which costs less than a digest of the
    /// file.
    pub fn seen_at_start(
        &self,
        what: &str,
        context: &dyn OpenContext,
        find: &Find<'_>,
    ) -> Result<Result<Vec<u8>, String>, StageError> {
        if self.packing.is_some() || self.encoding.is_some() || is_remote(&self.path) {
            return self.remembered(what, context, find);
        }
        match self.section().and_then(|file| find(&file)) {
            Ok(found) => Ok(Ok(found)),
            Err(cause) => self.failed(cause),
        }
    }

    fn remembered_of(
        &self,
        what: &str,
        context: &dyn OpenContext,
        digest: Digest,
        find: &mut dyn FnMut() -> io::Result<Vec<u8>>,
    ) -> Result<Result<Vec<u8>, String>, StageError> {
        let key = format!("read/{what}/{}/{}", self.identity(), digest.to_hex());
        let mut damaged = None;
        let mut compute = || match find() {
            Ok(found) => Ok(found),
            Err(cause) => {
                let text = cause.to_string();
                damaged = self.failed::<()>(cause)?.err();
                Err(StageError::new(text))
            }
        };
        let found = context.remembered(&key, &mut compute);
        match (found, damaged) {
            (Ok(found), _) => Ok(Ok(found)),
            (Err(_), Some(cause)) => Ok(Err(cause)),
            (Err(error), None) => Err(error),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why it could not be read from where it lies, if that is elsewhere: then what was read of it means nothing.
    pub fn take_failure(&self) -> Result<(), StageError> {
        if !is_remote(&self.path) {
            return Ok(());
        }
        RemoteFile::open(&self.path)?.take_failure().map_or(Ok(()), Err)
    }

    /// What of it decides its bytes, beside the file's own.
    pub fn identity(&self) -> String {
        let encoding = self.encoding.map_or("", Encoding::name);
        match self.packing {
            None => encoding.to_owned(),
            Some(packing) => format!("{packing:?}/{encoding}"),
        }
    }

    /// The bytes, from the first one on.
    pub fn section(&self) -> io::Result<Section> {
        if self.packing.is_none() && self.encoding.is_none() {
            return Section::open(&self.path);
        }
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        let file = if let Some(file) = unpacked.as_ref() {
            Arc::clone(file)
        } else {
            let file = Arc::new(self.unpack()?);
            *unpacked = Some(Arc::clone(&file));
            file
        };
        Section::of(file)
    }

    /// What the first bytes show, after unpacking.
    pub fn content(&self) -> io::Result<Option<Content>> {
        let mut start = Vec::with_capacity(PEEKED);
        match self.packing {
            None => return peek(&self.path),
            Some(_) => self.stream()?.take(PEEKED as u64).read_to_end(&mut start)?,
        };
        Ok(Content::of(&start))
    }

    /// The unpacked bytes in order, in the file's own encoding.
    fn stream(&self) -> io::Result<Box<dyn Read>> {
        let file = BufReader::with_capacity(BUFFER, Section::open(&self.path)?);
        Ok(match self.packing {
            None => Box::new(file),
            Some(Packing::Gzip) => Box::new(MultiGzDecoder::new(file)),
            Some(Packing::Zstd) => Box::new(zstd::Decoder::with_buffer(file)?),
        })
    }

    fn unpack(&self) -> io::Result<File> {
        let mut input = self.stream()?;
        let mut file = tempfile::tempfile_in(&self.scratch)?;
        match self.encoding {
            None => {
                io::copy(&mut input, &mut file)?;
            }
            Some(encoding) => transcode(&mut input, encoding, &mut file)?,
        }
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }
}

/// What the first bytes of a file show.
pub fn peek(path: &Path) -> io::Result<Option<Content>> {
    let mut start = Vec::with_capacity(PEEKED);
    Section::open(path)?.take(PEEKED as u64).read_to_end(&mut start)?;
    Ok(Content::of(&start))
}

/// Copies text into UTF-8. Bytes that are no text in `encoding` are an error that says where.
fn transcode(input: &mut dyn Read, encoding: &'static Encoding, output: &mut dyn Write) -> io::Result<()> {
    let mut decoder = encoding.new_decoder();
    let (mut bytes, mut text) = (vec![0; BUFFER], String::with_capacity(BUFFER * 3));
    let mut read_before = 0;
    loop {
        let read = input.read(&mut bytes)?;
        let mut at = 0;
        loop {
            let (result, used, malformed) = decoder.decode_to_string(&bytes[at..read], &mut text, read == 0);
            if malformed {
                let place = read_before + at;
                let detail = format!("it is no {} text (behind byte {place})", encoding.name());
                return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
            }
            at += used;
            output.write_all(text.as_bytes())?;
            text.clear();
            if result == CoderResult::InputEmpty {
                break;
            }
        }
        if read == 0 {
            return Ok(());
        }
        read_before += read;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn read(bytes: &[u8], encoding: Option<&'static Encoding>) -> io::Result<String> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("file");
        std::fs::write(&path, bytes)?;
        let input = Input::open(&path, encoding, folder.path().to_owned())?;
        let mut text = String::new();
        input.section()?.read_to_string(&mut text)?;
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 1, "what is unpacked has no name");
        Ok(text)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn packed_and_foreign_text_reads_as_utf8() {
        let text = "图,a cat\n".repeat(100_000);
        assert_eq!(read(text.as_bytes(), None).unwrap(), text);
        assert_eq!(read(&gzip(text.as_bytes()), None).unwrap(), text);
        let halves = [gzip(&text.as_bytes()[..100]), gzip(&text.as_bytes()[100..])].concat();
        assert_eq!(read(&halves, None).unwrap(), text, "gzip files one behind the other are one");
        let packed = zstd::encode_all(text.as_bytes(), 1).unwrap();
        assert_eq!(read(&packed, None).unwrap(), text);
        let (gbk, _, _) = encoding_rs::GBK.encode(&text);
        assert_eq!(read(&gzip(&gbk), Some(encoding_rs::GBK)).unwrap(), text);
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(
            read(&[b"\xff\xfe", utf16.as_slice()].concat(), Some(encoding_rs::UTF_16LE)).unwrap(),
            text
        );
    }

    #[test]
    fn what_was_cut_short_or_is_in_another_encoding_is_an_error() {
        let packed = gzip("a cat\n".repeat(10_000).as_bytes());
        assert!(read(&packed[..packed.len() - 9], None).is_err());
        let error = read(b"caf\xff\xff", Some(encoding_rs::GBK)).unwrap_err();
        assert!(error.to_string().contains("it is no GBK text"), "{error}");
    }
}
