//! The last step of an ingest: columns on disk become a cache's, with the digest of all values.

use crate::cache::{self, ArrowWriter, CHUNK, Values};
use crate::columns::{Measured, moment};
use crate::error::{At, Result};
use crate::ingest::{Progress, Watch};
use crate::input::hex;
use crate::raw::{Field, Role};
use crate::vocab;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// A stream of numbers of `N` bytes.
struct Stream {
    path: PathBuf,
    file: BufReader<File>,
    buffer: Vec<u8>,
}

impl Stream {
    fn open(path: &Path) -> Result<Self> {
        let file = BufReader::with_capacity(1 << 16, File::open(path).at(path)?);
        Ok(Self { path: path.into(), file, buffer: Vec::new() })
    }

    fn next<const N: usize, T>(&mut self, n: usize, parse: fn([u8; N]) -> T) -> Result<Vec<T>> {
        self.buffer.resize(n * N, 0);
        self.file.read_exact(&mut self.buffer).at(&self.path)?;
        let (words, _) = self.buffer.as_chunks::<N>();
        Ok(words.iter().map(|word| parse(*word)).collect())
    }
}

/// Joins the columns into `data.arrow` and the flat ids of multi-valued ones. Returns the SHA-256 of
/// all values, by column: what identifies the content of a data set, whatever file it came in.
pub(super) fn write_rows(
    fields: &[Field],
    folder: &Path,
    (rows, files): (u64, u32),
    numbers: &BTreeMap<usize, (PathBuf, Measured)>,
    coded: &BTreeMap<usize, (vocab::Coded, Vec<u8>)>,
    watch: Watch<'_>,
) -> Result<String> {
    let data = folder.join("data.arrow");
    let mut writer = ArrowWriter::new(&data);
    let names = (0..fields.len()).map(|i| i.to_string()).chain(["file".into()]);
    let names: Vec<String> = names.collect();
    let (mut streams, mut sums) = (Vec::new(), Vec::new());
    for (i, field) in fields.iter().enumerate() {
        let mut sum = Sha256::new();
        sum.update(coded.get(&i).map_or(&[][..], |(_, values)| values));
        sum.update(numbers.get(&i).map_or(Ok(1), |(_, m)| m.scale())?.to_le_bytes());
        let flat = matches!(field.role, Role::Multi(_));
        let path = if field.role.is_coded() && !flat { &coded[&i].0.ids } else { &numbers[&i].0 };
        streams.push(Stream::open(path)?);
        if flat {
            write_flat(folder, i, &coded[&i].0, &mut sum)?;
        }
        sums.push(sum);
    }
    let mut file = Stream::open(&numbers[&fields.len()].0)?;
    let mut read = |first: u64| {
        let n = rows.saturating_sub(first).min(CHUNK as u64) as usize;
        let read = |(i, (field, stream)): (usize, (&Field, &mut Stream))| {
            Ok(match field.role {
                Role::Label | Role::Rating | Role::Weight | Role::Dense => {
                    let wide = stream.next(n, f64::from_le_bytes)?;
                    match numbers[&i].1.wide {
                        true => Chunk::F64(wide),
                        false => Chunk::F32(wide.into_iter().map(|x| x as f32).collect()),
                    }
                }
                Role::Time => {
                    let scale = numbers[&i].1.scale()?;
                    let times = stream.next(n, |bytes| moment(&bytes))?.into_iter();
                    let fine =
                        |(whole, part)| whole * scale + i64::from(part) * scale / 1_000_000_000;
                    Chunk::I64(times.map(fine).collect())
                }
                Role::Multi(_) => Chunk::Ids(stream.next(n, u32::from_le_bytes)?, u32::MAX),
                _ => {
                    let (coded, _) = &coded[&i];
                    let mut ids = stream.next(n, u32::from_le_bytes)?;
                    coded.to_ranks(&mut ids);
                    Chunk::Ids(ids, coded.distinct)
                }
            })
        };
        let chunks = fields.par_iter().zip(&mut streams).enumerate().map(read);
        let mut chunks = chunks.collect::<Result<Vec<Chunk>>>()?;
        let of_file = file.next(n, u16::from_le_bytes)?.into_iter().map(u32::from);
        chunks.push(Chunk::Ids(of_file.collect(), files));
        Ok(chunks)
    };
    let mut write = |chunks: &[Chunk]| {
        sums.par_iter_mut().zip(chunks).for_each(|(sum, chunk)| chunk.add_to(sum));
        let values = chunks.iter().map(|chunk| match chunk {
            Chunk::F32(x) => Values::F32(x),
            Chunk::F64(x) => Values::F64(x),
            Chunk::I64(x) => Values::I64(x),
            Chunk::Ids(ids, distinct) => Values::Ids { ids, distinct: *distinct },
        });
        let columns: Vec<(&str, Values<'_>)> =
            names.iter().map(String::as_str).zip(values).collect();
        writer.write(&columns)
    };
    // The next rows are read while these are written.
    let mut chunks = read(0)?;
    for first in (0..rows).step_by(CHUNK) {
        watch(Progress { phase: "writing", done: first, total: rows })?;
        let (written, next) = rayon::join(|| write(&chunks), || read(first + CHUNK as u64));
        written?;
        chunks = next?;
    }
    writer.finish()?;
    let mut all = Sha256::new();
    sums.into_iter().for_each(|sum| all.update(sum.finalize()));
    Ok(hex(&all.finalize())[..16].into())
}

/// Values of a column.
enum Chunk {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    Ids(Vec<u32>, u32),
}

impl Chunk {
    /// Adds the values to a digest, numbers as of double precision.
    fn add_to(&self, sum: &mut Sha256) {
        let bytes: Vec<u8> = match self {
            Chunk::F32(x) => x.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
            Chunk::F64(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Chunk::I64(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Chunk::Ids(x, _) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        sum.update(&bytes);
    }
}

fn write_flat(folder: &Path, column: usize, coded: &vocab::Coded, sum: &mut Sha256) -> Result<()> {
    let path = folder.join(cache::flat_name(column));
    let mut writer = ArrowWriter::new(&path);
    let mut left = std::fs::metadata(&coded.ids).at(&coded.ids)?.len() as usize / 4;
    let mut stream = Stream::open(&coded.ids)?;
    while left > 0 {
        let n = left.min(CHUNK);
        let mut ids = stream.next(n, u32::from_le_bytes)?;
        coded.to_ranks(&mut ids);
        Chunk::Ids(ids.clone(), 0).add_to(sum);
        writer.write(&[("id", Values::Ids { ids: &ids, distinct: coded.distinct })])?;
        left -= n;
    }
    writer.finish()
}
