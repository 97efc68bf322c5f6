//! Raw input: plain, .gz or .zst, hashed while it is read.

use crate::error::{At, Error, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Bytes and SHA-256 of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digested {
    /// Size.
    pub bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// Bytes of a chunk that is read ahead.
const CHUNK: usize = 1 << 20;

/// Passes bytes through; another thread reads them ahead and hashes them. Asks now and then whether
/// to go on.
pub struct Hashing<'a> {
    chunks: Receiver<io::Result<Vec<u8>>>,
    reader: JoinHandle<Sha256>,
    chunk: Vec<u8>,
    /// Bytes of the chunk, and of all, that were passed on.
    at: usize,
    bytes: u64,
    progress: &'a mut dyn FnMut(u64) -> Result<()>,
}

impl<'a> Hashing<'a> {
    /// Opens `path`; `progress` gets the bytes read so far and may stop the reading.
    pub fn open(path: &Path, progress: &'a mut dyn FnMut(u64) -> Result<()>) -> Result<Self> {
        if path.is_dir() {
            return Err(Error::file(path, "is a folder, not a file"));
        }
        let mut file = File::open(path).at(path)?;
        let (send, chunks) = sync_channel(4);
        let reader = std::thread::spawn(move || {
            let mut sha256 = Sha256::new();
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                let read = file.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
                sha256.update(&chunk);
                let failed = read.is_err();
                // Nobody listens where the reading was stopped.
                if matches!(read, Ok(0)) || send.send(read.map(|_| chunk)).is_err() || failed {
                    return sha256;
                }
            }
        });
        Ok(Self { chunks, reader, chunk: Vec::new(), at: 0, bytes: 0, progress })
    }

    /// Reads what is left and returns the digest of the whole file.
    pub fn finish(mut self, path: &Path) -> Result<Digested> {
        while self.fill().at(path)? {
            self.bytes += (self.chunk.len() - self.at) as u64;
            self.at = self.chunk.len();
        }
        let sha256 = self.reader.join().expect("reading does not panic");
        Ok(Digested { bytes: self.bytes, sha256: hex(&sha256.finalize()) })
    }

    /// Gets the next chunk where this one was passed on; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        if self.at == self.chunk.len() {
            let Ok(chunk) = self.chunks.recv() else { return Ok(false) };
            (self.chunk, self.at) = (chunk?, 0);
            (self.progress)(self.bytes).map_err(io::Error::other)?;
        }
        Ok(true)
    }
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.fill()? {
            return Ok(0);
        }
        let n = buffer.len().min(self.chunk.len() - self.at);
        buffer[..n].copy_from_slice(&self.chunk[self.at..][..n]);
        self.at += n;
        self.bytes += n as u64;
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
    /// Unpacks by what the file begins with, whatever it is called, and drops a UTF-8 byte-order
    /// mark. Refuses what is no text.
    pub fn new(path: &Path, raw: impl Read + 'a) -> Result<Self> {
        let mut raw = BufReader::with_capacity(1 << 18, raw);
        let start = raw.fill_buf().at(path)?;
        let begins = |magic: &[u8]| start.starts_with(magic);
        let packed = match () {
            () if begins(b"\x1F\x8B") => Some("gz"),
            () if begins(b"\x28\xB5\x2F\xFD") => Some("zst"),
            () => None,
        };
        let named =
            path.extension().and_then(|e| e.to_str()).filter(|e| matches!(*e, "gz" | "zst"));
        if let (Some(named), None, false) = (named, packed, start.is_empty()) {
            return Err(Error::file(
                path,
                format!("is called .{named} and is not: get it again, or rename it"),
            ));
        }
        let not_text = match () {
            () if begins(b"PK\x03\x04") => {
                Some("a zip archive: unpack it (unzip), and name what is in it")
            }
            () if begins(b"PAR1") => Some("a Parquet file: convert it to CSV, such as with DuckDB"),
            () if begins(b"ARROW1") => Some("an Arrow file: convert it to CSV"),
            () if begins(b"BZh") => Some("packed by bzip2: unpack it (bunzip2)"),
            () if begins(b"\xFD7zXZ") => Some("packed by xz: unpack it (unxz)"),
            () if begins(b"\xFF\xFE") || begins(b"\xFE\xFF") => {
                Some("text in UTF-16: convert it, iconv -f UTF-16 -t UTF-8")
            }
            () if packed.is_none() && start[..start.len().min(1024)].contains(&0) => {
                Some("no text in UTF-8: it has bytes of value 0")
            }
            () => None,
        };
        if let Some(what) = not_text {
            return Err(Error::file(path, format!("is {what}")));
        }
        let mut text: Box<dyn BufRead + 'a> = match packed {
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
