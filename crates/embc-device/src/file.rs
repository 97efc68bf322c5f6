//! The packed file: `model.embc`.
//!
//! 40 bytes (magic, version, length of the header, its checksum, that of all blobs), the header,
//! then blobs: those of a page or more begin at a page, so that pages hold whole neighbours and the
//! operating system reads what is asked for. Tables are in the order of their ids, which is that of
//! their frequency. Everything is little-endian.

use crate::bytes::{Field, Read, checksum, record};
use crate::program::{Op, Program, Scope};
use crate::tensor::Tensor;
use crate::{Error, Transform, wrong};

/// What a packed file begins with.
const MAGIC: &[u8; 8] = b"\x89embc\r\n\x1A";
/// The version of the format.
const VERSION: u32 = 1;
/// Magic, version, length and checksum of the header, checksum of the blobs, and 0.
const START: usize = 40;
/// Blobs from this size on begin at a page.
const PAGE: u64 = 4096;
/// All others begin at a line of the cache.
const LINE: u64 = 64;
/// No header is longer.
const LONGEST: u64 = 1 << 22;

/// Bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// From the file's start.
    pub offset: u64,
    /// Its length.
    pub length: u64,
}

/// An input of the model: ids of a field.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Number of ids.
    pub vocab: u32,
    /// True where an example has any number of ids.
    pub several: bool,
    /// From ids to rows.
    pub table: Vec<Op>,
    /// Index of its vocabulary, where the file has it.
    pub vocabulary: Option<u32>,
}

/// The values of a field, in the order of their ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Vocabulary {
    /// Number of values.
    pub values: u32,
    /// The id of all other values, if they have one.
    pub unknown: Option<u32>,
    /// All values, one after the other.
    pub text: u32,
    /// Where each begins, and where the last one ends: [values + 1] of 32 bits.
    pub starts: u32,
    /// Ids in the order of their values' bytes [values] of 32 bits.
    pub sorted: u32,
}

/// A dense feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Where it is standardised, what is subtracted and then multiplied with.
    pub shift: f64,
    /// See `shift`.
    pub scale: f64,
}

/// All that a file says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// What made it, and from what: for people.
    pub about: String,
    /// Where blobs lie.
    pub blobs: Vec<Blob>,
    /// What they hold.
    pub tensors: Vec<Tensor>,
    /// The inputs.
    pub inputs: Vec<Input>,
    /// True where the rows of an example are averaged, else they are summed.
    pub mean: bool,
    /// What the model sees of a dense feature.
    pub transform: Transform,
    /// The dense features.
    pub features: Vec<Feature>,
    /// From pooled rows and dense features to logits; empty where the file holds tables alone.
    pub model: Vec<Op>,
    /// Vocabularies, which inputs may share.
    pub vocabularies: Vec<Vocabulary>,
}

record!(Blob { offset, length });
record!(Input { name, vocab, several, table, vocabulary });
record!(Vocabulary { values, unknown, text, starts, sorted });
record!(Feature { name, shift, scale });
record!(Header { about, blobs, tensors, inputs, mean, transform, features, model, vocabularies });

/// Programs of a file that were checked.
#[derive(Debug)]
pub struct Programs {
    /// One an input.
    pub tables: Vec<Program>,
    /// That of the model, if it is there.
    pub model: Option<Program>,
}

impl Header {
    /// Lays out blobs of such lengths after the header, which is as long whatever their places are.
    pub fn place(&mut self, lengths: &[u64]) {
        self.blobs = lengths.iter().map(|&length| Blob { offset: 0, length }).collect();
        let mut header = Vec::new();
        self.put(&mut header);
        let mut at = (START + header.len()) as u64;
        for blob in &mut self.blobs {
            blob.offset = at.next_multiple_of(if blob.length >= PAGE { PAGE } else { LINE });
            at = blob.offset + blob.length;
        }
    }

    /// The file's bytes up to its first blob, given the checksum of all of them.
    pub fn start(&self, blobs: u64) -> Vec<u8> {
        let mut header = Vec::new();
        self.put(&mut header);
        let mut start = MAGIC.to_vec();
        VERSION.put(&mut start);
        0u32.put(&mut start);
        (header.len() as u64).put(&mut start);
        checksum(&header).put(&mut start);
        blobs.put(&mut start);
        start.extend(header);
        start
    }

    /// Reads and checks the header of a file, and the checksum that its blobs should have.
    pub fn read(file: &[u8]) -> Result<(Self, u64), Error> {
        let mut from = Read(file);
        if from.take(MAGIC.len()).ok() != Some(MAGIC) {
            return wrong("not a model that embc packed");
        }
        let version = u32::get(&mut from)?;
        let reserved = u32::get(&mut from)?;
        if version == VERSION && reserved != 0 {
            return wrong("its header is damaged");
        }
        if version != VERSION {
            return wrong(format!(
                "of format version {version}; this reader knows version {VERSION}"
            ));
        }
        let length = u64::get(&mut from)?;
        let (sum, blobs) = (u64::get(&mut from)?, u64::get(&mut from)?);
        if length > LONGEST {
            return wrong("its header is too long");
        }
        let bytes = from.take(length as usize)?;
        if checksum(bytes) != sum {
            return wrong("its header is damaged: the checksum does not match");
        }
        let mut from = Read(bytes);
        let header = Self::get(&mut from)?;
        if !from.0.is_empty() {
            return wrong("its header is longer than what it says");
        }
        header.check(file.len() as u64)?;
        Ok((header, blobs))
    }

    /// Checks that everything lies in the file.
    fn check(&self, length: u64) -> Result<(), Error> {
        let inside =
            |blob: &Blob| blob.offset.checked_add(blob.length).is_some_and(|e| e <= length);
        if !self.blobs.iter().all(inside) {
            return wrong("it is cut off, or its header lies");
        }
        let blob = |i: u32| self.blobs.get(i as usize).map(|blob| blob.length);
        self.tensors.iter().try_for_each(|tensor| tensor.check(blob))?;
        for words in &self.vocabularies {
            let n = u64::from(words.values);
            let fits = blob(words.text).is_some()
                && blob(words.starts) == Some(4 * (n + 1))
                && blob(words.sorted) == Some(4 * n);
            if !fits {
                return wrong("a vocabulary lies outside its file");
            }
        }
        let known = |i: &Input| i.vocabulary.is_none_or(|v| (v as usize) < self.vocabularies.len());
        if !self.inputs.iter().all(known) {
            return wrong("there is no such vocabulary");
        }
        Ok(())
    }

    /// Checks all programs.
    pub fn programs(&self) -> Result<Programs, Error> {
        let table = |input: &Input| Program::new(input.table.clone(), &self.tensors, Scope::Ids);
        let tables: Vec<Program> = self.inputs.iter().map(table).collect::<Result<_, _>>()?;
        let widths: Vec<u32> = tables.iter().map(Program::width).collect();
        let scope = Scope::Pooled { widths: &widths, dense: self.features.len() as u32 };
        let model = (!self.model.is_empty())
            .then(|| Program::new(self.model.clone(), &self.tensors, scope))
            .transpose()?;
        Ok(Programs { tables, model })
    }
}

/// Writes a file: `header`, whose blobs are placed here, and what they hold.
pub fn write(
    header: &mut Header,
    blobs: &[&[u8]],
    out: &mut impl std::io::Write,
) -> std::io::Result<()> {
    header.place(&blobs.iter().map(|blob| blob.len() as u64).collect::<Vec<u64>>());
    let sums: Vec<u8> = blobs.iter().flat_map(|blob| checksum(blob).to_le_bytes()).collect();
    let start = header.start(checksum(&sums));
    if start.len() as u64 > LONGEST {
        return Err(std::io::Error::other("a header of more than 4 MiB: too many inputs to pack"));
    }
    out.write_all(&start)?;
    let mut at = start.len() as u64;
    for (blob, place) in blobs.iter().zip(&header.blobs) {
        out.write_all(&vec![0; (place.offset - at) as usize])?;
        out.write_all(blob)?;
        at = place.offset + place.length;
    }
    Ok(())
}
