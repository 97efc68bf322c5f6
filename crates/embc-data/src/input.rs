//! Raw input: plain, .gz or .zst, hashed while it is read.

use crate::error::{At, Error, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes and SHA-256 of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digested {
    /// Size.
    pub bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// Passes bytes through and hashes them; asks now and then whether to go on.
pub struct Hashing<'a> {
    inner: File,
    sha256: Sha256,
    bytes: u64,
    progress: &'a mut dyn FnMut(u64) -> Result<()>,
}

impl<'a> Hashing<'a> {
    /// Opens `path`; `progress` gets the bytes read so far and may stop the reading.
    pub fn open(path: &Path, progress: &'a mut dyn FnMut(u64) -> Result<()>) -> Result<Self> {
        if path.is_dir() {
            return Err(Error::file(path, "is a folder, not a file"));
        }
        let inner = File::open(path).at(path)?;
        Ok(Self { inner, sha256: Sha256::new(), bytes: 0, progress })
    }

    /// Reads what is left and returns the digest of the whole file.
    pub fn finish(mut self, path: &Path) -> Result<Digested> {
        let mut buffer = vec![0; 1 << 18];
        while self.read(&mut buffer).at(path)? > 0 {}
        Ok(Digested { bytes: self.bytes, sha256: hex(&self.sha256.finalize()) })
    }
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.sha256.update(&buffer[..n]);
        self.bytes += n as u64;
        (self.progress)(self.bytes).map_err(io::Error::other)?;
        Ok(n)
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of a file.
pub fn digest(path: &Path, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<Digested> {
    Hashing::open(path, progress)?.finish(path)
}

/// The text of a raw file, for a reader.
pub struct Input<'a> {
    /// For messages.
    pub path: PathBuf,
    text: Box<dyn BufRead + 'a>,
}

impl<'a> Input<'a> {
    /// Unpacks by the file's extension and drops a UTF-8 byte-order mark.
    pub fn new(path: &Path, raw: impl Read + 'a) -> Result<Self> {
        let raw = BufReader::with_capacity(1 << 18, raw);
        let extension = path.extension().and_then(|e| e.to_str());
        let mut text: Box<dyn BufRead + 'a> = match extension {
            Some("gz") => Box::new(BufReader::with_capacity(
                1 << 18,
                flate2::bufread::MultiGzDecoder::new(raw),
            )),
            Some("zst") => Box::new(BufReader::with_capacity(
                1 << 18,
                zstd::stream::read::Decoder::with_buffer(raw).at(path)?,
            )),
            _ => Box::new(raw),
        };
        if text.fill_buf().at(path)?.starts_with(b"\xEF\xBB\xBF") {
            text.consume(3);
        }
        Ok(Self { path: path.into(), text })
    }

    /// Calls `each` with the number and bytes of every line that is not empty.
    pub fn lines(mut self, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if self.text.read_until(b'\n', &mut line).at(&self.path)? == 0 {
                break;
            }
            let end = line.iter().rposition(|b| !matches!(b, b'\n' | b'\r'));
            if let Some(end) = end {
                each(number, &line[..=end])?;
            }
        }
        Ok(())
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.text.read(buffer)
    }
}
