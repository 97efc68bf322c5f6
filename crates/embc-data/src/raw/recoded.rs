//! Text that is not quite what the CSV reader reads: Latin-1, and two characters between columns.

use std::io::{self, Read};

/// What stands for a delimiter of two characters: ASCII's own separator of units.
pub(super) const UNIT: u8 = 0x1F;

/// Text on its way, made into UTF-8 with delimiters of one byte.
pub(super) struct Recoded<R> {
    inner: R,
    latin1: bool,
    /// A delimiter of this byte twice.
    twice: Option<u8>,
    raw: Vec<u8>,
    /// The last chunk ended in half a delimiter.
    half: bool,
    out: Vec<u8>,
    at: usize,
}

impl<R: Read> Recoded<R> {
    pub fn new(inner: R, latin1: bool, twice: Option<u8>) -> Self {
        Self { inner, latin1, twice, raw: vec![0; 1 << 16], half: false, out: Vec::new(), at: 0 }
    }

    fn recode(&mut self, n: usize) {
        for &byte in &self.raw[..n] {
            match (self.half, Some(byte) == self.twice) {
                (true, true) => self.out.push(UNIT),
                (true, false) => self.out.extend(self.twice),
                _ => {}
            }
            let first = !self.half && Some(byte) == self.twice;
            match byte {
                _ if first || self.half && Some(byte) == self.twice => {}
                0x80.. if self.latin1 => {
                    let mut utf8 = [0; 2];
                    self.out.extend_from_slice(char::from(byte).encode_utf8(&mut utf8).as_bytes());
                }
                _ => self.out.push(byte),
            }
            self.half = first;
        }
        if n == 0 && std::mem::take(&mut self.half) {
            self.out.extend(self.twice);
        }
    }
}

impl<R: Read> Read for Recoded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.latin1 && self.twice.is_none() {
            return self.inner.read(buffer);
        }
        while self.at == self.out.len() {
            self.out.clear();
            self.at = 0;
            let n = self.inner.read(&mut self.raw)?;
            self.recode(n);
            if n == 0 && self.out.is_empty() {
                return Ok(0);
            }
        }
        let n = buffer.len().min(self.out.len() - self.at);
        buffer[..n].copy_from_slice(&self.out[self.at..][..n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_delimiters_meet_across_reads() {
        let text = b"1::a:b::\xE9:::c:\n::2:";
        for size in 1..=text.len() {
            struct Slow<'a>(&'a [u8], usize);
            impl Read for Slow<'_> {
                fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                    let n = self.1.min(buffer.len());
                    self.0.read(&mut buffer[..n])
                }
            }
            let mut all = Vec::new();
            Recoded::new(Slow(text, size), true, Some(b':')).read_to_end(&mut all).unwrap();
            assert_eq!(all, "1\x1Fa:b\x1Fé\x1F:c:\n\x1F2:".as_bytes(), "{size} bytes at a time");
        }
    }
}
