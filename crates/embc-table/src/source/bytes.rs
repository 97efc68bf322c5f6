//! Numbers and words out of a binary file, in order.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;

/// No word and no text of a header is longer.
const LONGEST: u64 = 1 << 26;

/// A file that is read from its start.
pub struct Bytes {
    file: BufReader<File>,
}

impl Bytes {
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { file: BufReader::with_capacity(1 << 20, File::open(path)?) })
    }

    /// The next N bytes.
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes).context("it is cut off")?;
        Ok(bytes)
    }

    /// The next `n` bytes.
    pub fn some(&mut self, n: u64) -> Result<Vec<u8>> {
        if n > LONGEST {
            bail!("a text of {n} bytes: it is damaged");
        }
        let mut bytes = Vec::new();
        (&mut self.file).take(n).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < n {
            bail!("it is cut off");
        }
        Ok(bytes)
    }

    /// Up to `end`, which is left out.
    pub fn until(&mut self, end: u8) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.file).take(LONGEST).read_until(end, &mut bytes)?;
        match bytes.pop() {
            Some(last) if last == end => Ok(bytes),
            _ => bail!("it is cut off"),
        }
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_le_bytes(self.take()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.take()?))
    }

    /// Values of single precision.
    pub fn floats(&mut self, out: &mut [f32]) -> Result<()> {
        self.file.read_exact(bytemuck::cast_slice_mut(out)).context("it is cut off")?;
        if cfg!(target_endian = "big") {
            out.iter_mut().for_each(|x| *x = f32::from_bits(x.to_bits().swap_bytes()));
        }
        Ok(())
    }

    /// Skips `n` bytes.
    pub fn skip(&mut self, n: u64) -> Result<()> {
        let n = i64::try_from(n).context("it is damaged")?;
        Ok(self.file.seek_relative(n)?)
    }

    /// Skips what is there of one byte.
    pub fn skip_if(&mut self, byte: u8) -> Result<()> {
        if self.file.fill_buf()?.first() == Some(&byte) {
            self.file.consume(1);
        }
        Ok(())
    }

    /// Where the next byte is.
    pub fn place(&mut self) -> Result<u64> {
        Ok(self.file.stream_position()?)
    }
}

/// A word, whose bytes may not be text.
pub fn word(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}
