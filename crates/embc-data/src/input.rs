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

/// A raw file, for a reader: as a stream of bytes, or by its path.
pub struct Input<'a> {
    /// Where it is.
    pub path: PathBuf,
    raw: Box<dyn Read + 'a>,
    followed: u64,
}

/// Its text.
pub struct Text<'a> {
    path: PathBuf,
    text: Box<dyn BufRead + 'a>,
}

/// The longest line of text that is read: what has a longer one is no table.
pub const LONGEST: usize = 64 << 20;

/// What a file is, if it begins so and is no text.
const NO_TEXT: &[(&[u8], &str)] = &[
    (b"\xFF\xFF\xFF\xFF", "an Arrow stream: write it as an Arrow file or as Parquet"),
    (b"PAR1", "a Parquet file: say format = \"parquet\""),
    (b"ARROW1", "an Arrow file: say format = \"arrow\""),
    (b"FEA1", "a Feather file of the first version: write it anew, as Arrow or Parquet"),
    (b"BZh", "packed by bzip2: unpack it (bunzip2)"),
    (b"\xFD7zXZ", "packed by xz: unpack it (unxz)"),
    (b"7z\xBC\xAF", "a 7z archive: unpack it, and name what is in it"),
    (b"\xFF\xFE", "text in UTF-16: convert it, iconv -f UTF-16 -t UTF-8"),
    (b"\xFE\xFF", "text in UTF-16: convert it, iconv -f UTF-16 -t UTF-8"),
    (b"\x89HDF", "an HDF5 file: write it anew, as Parquet or CSV"),
    (b"SQLite", "an SQLite database: export a table as CSV"),
];

impl<'a> Input<'a> {
    /// The file `path`, whose bytes are `raw`.
    pub fn new(path: &Path, raw: impl Read + 'a) -> Self {
        Self { path: path.into(), raw: Box::new(raw), followed: 0 }
    }

    /// Says that a reader by path has come to byte `to`: what is hashed follows, and may be stopped.
    pub fn follow(&mut self, to: u64) -> Result<()> {
        let more = to.saturating_sub(self.followed);
        let read = io::copy(&mut self.raw.by_ref().take(more), &mut io::sink()).at(&self.path)?;
        self.followed += read;
        Ok(())
    }

    /// Its text. Unpacks by what the file begins with, whatever it is called, and drops a UTF-8
    /// byte-order mark. Refuses what is no text.
    pub fn text(self) -> Result<Text<'a>> {
        let Self { path, raw, .. } = self;
        let mut raw = BufReader::with_capacity(1 << 18, raw);
        let start = raw.fill_buf().at(&path)?;
        let packed = match () {
            () if start.starts_with(b"\x1F\x8B") => Some("gz"),
            () if start.starts_with(b"\x28\xB5\x2F\xFD") => Some("zst"),
            () if start.starts_with(b"PK\x03\x04") => Some("zip"),
            () => None,
        };
        let named = path.extension().and_then(|e| e.to_str());
        let named = named.filter(|e| matches!(*e, "gz" | "zst" | "zip"));
        if let (Some(named), None, false) = (named, packed, start.is_empty()) {
            let what = format!("is called .{named} and is not: get it again, or rename it");
            return Err(Error::file(&path, what));
        }
        let unpacked: Box<dyn Read + 'a> = match packed {
            Some("gz") => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
            Some("zip") => Box::new(unzip(&path)?),
            Some(_) => Box::new(zstd::stream::read::Decoder::with_buffer(raw).at(&path)?),
            None => Box::new(raw),
        };
        let mut text = BufReader::with_capacity(1 << 18, unpacked);
        let start = text.fill_buf().at(&path)?;
        let inside = if packed.is_some() { "holds what is " } else { "is " };
        let known = NO_TEXT.iter().find(|(begin, _)| start.starts_with(begin));
        let what = match known {
            Some((_, what)) if packed.is_some() && !what.starts_with("text") => {
                Some("no text: unpack it")
            }
            Some((_, what)) => Some(*what),
            None if packed.is_some() && start.starts_with(b"PK\x03\x04") => {
                Some("an archive again: unpack it, and name what is in it")
            }
            None if start[..start.len().min(1024)].contains(&0) => {
                Some("no text in UTF-8: it has bytes of value 0")
            }
            None => None,
        };
        if let Some(what) = what {
            return Err(Error::file(&path, format!("{inside}{what}")));
        }
        if start.starts_with(b"\xEF\xBB\xBF") {
            text.consume(3);
        }
        Ok(Text { path, text: Box::new(text) })
    }

    /// Calls `each` with the number and bytes of every line that is not empty.
    pub fn lines(self, each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.text()?.lines(each)
    }
}

/// The one file in a zip archive, of which nothing is written to disk.
fn unzip(path: &Path) -> Result<impl Read + use<>> {
    let file = BufReader::new(File::open(path).at(path)?);
    let wrong = |what: String| Error::file(path, format!("is a zip archive {what}"));
    let damaged = |error: zip::result::ZipError| wrong(format!("that is damaged: {error}"));
    let mut archive = zip::ZipArchive::new(file).map_err(damaged)?;
    let mut found = None;
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).map_err(damaged)?;
        // What macOS adds is nobody's file.
        let name = entry.name().map_err(damaged)?.into_owned();
        let hidden =
            Path::new(&name).file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if entry.is_dir() || name.starts_with("__MACOSX/") || hidden {
            continue;
        }
        if entry.enclosed_name().is_none() {
            return Err(wrong(format!("whose {name:?} would lie elsewhere")));
        }
        if entry.encrypted() {
            return Err(wrong("with a password: unpack it, and name what is in it".into()));
        }
        if entry.size() > 1 << 30 && entry.size() / 200 > entry.compressed_size() {
            let (of, from) = (entry.size() >> 20, entry.compressed_size() >> 10);
            return Err(wrong(format!("of {of} MiB in {from} KiB: unpack it, if that is right")));
        }
        if found.replace(i).is_some() {
            return Err(wrong("of several files: unpack it, and name what is in it".into()));
        }
    }
    let i = found.ok_or_else(|| wrong("without a file".into()))?;
    let size = archive.by_index_raw(i).map_err(damaged)?.size();
    let (send, chunks) = sync_channel(4);
    // The archive's reader borrows it: a thread owns both.
    let reader = std::thread::spawn(move || {
        let mut entry = match archive.by_index(i) {
            Ok(entry) => entry.take(size + 1),
            Err(error) => return drop(send.send(Err(io::Error::other(error)))),
        };
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = entry.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
            let failed = read.is_err();
            if matches!(read, Ok(0)) || send.send(read.map(|_| chunk)).is_err() || failed {
                return;
            }
        }
    });
    Ok(Chunks { chunks, reader: Some(reader), chunk: Vec::new(), at: 0 })
}

/// Bytes that another thread reads ahead.
struct Chunks {
    chunks: Receiver<io::Result<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            let Ok(chunk) = self.chunks.recv() else {
                // A reader that broke off has not come to the end.
                let broken = self.reader.take().is_some_and(|reader| reader.join().is_err());
                let damaged = || io::Error::other("the archive is damaged");
                return if broken { Err(damaged()) } else { Ok(0) };
            };
            (self.chunk, self.at) = (chunk?, 0);
        }
        let n = buffer.len().min(self.chunk.len() - self.at);
        buffer[..n].copy_from_slice(&self.chunk[self.at..][..n]);
        self.at += n;
        Ok(n)
    }
}

impl Text<'_> {
    /// Calls `each` with the number and bytes of every line that is not empty.
    pub fn lines(mut self, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let mut some = self.text.by_ref().take(LONGEST as u64 + 1);
            if some.read_until(b'\n', &mut line).at(&self.path)? == 0 {
                break;
            }
            if line.len() > LONGEST {
                return Err(too_long(&self.path, number));
            }
            let end = line.iter().rposition(|b| !matches!(b, b'\n' | b'\r'));
            if let Some(end) = end {
                each(number, &line[..=end])?;
            }
        }
        Ok(())
    }
}

/// What is said of a line beyond [`LONGEST`].
pub fn too_long(path: &Path, line: u64) -> Error {
    Error::line(
        path,
        line,
        format!("the line has more than {} MiB: this is no table", LONGEST >> 20),
    )
}

impl Read for Text<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.text.read(buffer)
    }
}
