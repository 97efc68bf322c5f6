//! Named tensors in safetensors files, written as they are walked and read where they are wanted:
//! two copies of a table need not fit into memory. Where a file has metadata, its last tensor is a
//! SHA-256 of all that comes before.

use anyhow::{Context, Result, bail};
use embc_core::net::Net;
use embc_core::state::{HasState, Tensor, TensorMut, Tensors, is_optimizer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// A tensor to be written.
#[allow(missing_docs)] // the three kinds of `TensorMut`
pub enum Slice<'a> {
    F32(&'a [f32]),
    U32(&'a [u32]),
    U64(&'a [u64]),
}

/// Shows tensors, the same each time.
pub type Walk<'a> = &'a mut dyn FnMut(&mut dyn FnMut(&str, Slice<'_>));

/// What a state walk shows.
pub fn slice<'a>(tensor: &'a TensorMut<'_>) -> Slice<'a> {
    match tensor {
        TensorMut::F32(x) => Slice::F32(x),
        TensorMut::U32(x) => Slice::U32(x),
        TensorMut::U64(x) => Slice::U64(x),
    }
}

/// A file of tensors, which are read when they are asked for: two copies need not fit into memory.
pub struct Stored {
    file: File,
    /// The header: of each tensor its type, shape and place.
    pub index: serde_json::Map<String, Value>,
    /// Where the tensors begin.
    start: u64,
}

impl Stored {
    /// Opens a file that has a checksum, which is checked.
    pub fn open(path: &Path) -> Result<Self> {
        const BLOCK: usize = 1 << 20;
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let body = length.checked_sub(32).context("it is cut off")?;
        let (mut sum, mut buffer, mut left) = (Sha256::new(), vec![0; BLOCK], body);
        while left > 0 {
            let block = &mut buffer[..left.min(BLOCK as u64) as usize];
            (&file).read_exact(block)?;
            sum.update(&*block);
            left -= block.len() as u64;
        }
        let mut expect = [0; 32];
        (&file).read_exact(&mut expect)?;
        if sum.finalize()[..] != expect {
            bail!("its checksum does not match");
        }
        let mut size = [0; 8];
        (&file).seek(SeekFrom::Start(0))?;
        (&file).read_exact(&mut size)?;
        let size = u64::from_le_bytes(size);
        let index = serde_json::Deserializer::from_reader((&file).take(size));
        let index = index.into_iter().next().context("no header")??;
        Ok(Self { file, index, start: 8 + size })
    }

    /// The values of a tensor of the type `dtype`, [len]; none where there is no such tensor.
    fn values<T, const N: usize>(
        &self,
        name: &str,
        dtype: &str,
        of: fn([u8; N]) -> T,
        mut take: impl FnMut(T),
    ) -> Option<()> {
        let entry = self.index.get(name).filter(|entry| entry["dtype"] == dtype)?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.start + entry["data_offsets"][0].as_u64()?)).ok()?;
        let mut left = entry["shape"][0].as_u64()? as usize;
        let mut buffer = vec![0; left.min(1 << 16) * N];
        while left > 0 {
            let block = &mut buffer[..left.min(1 << 16) * N];
            file.read_exact(block).ok()?;
            block.chunks_exact(N).for_each(|x| take(of(x.try_into().expect("N bytes"))));
            left -= block.len() / N;
        }
        Some(())
    }

    /// A copy of a tensor.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        let entry = self.index.get(name)?;
        let len = entry["shape"][0].as_u64()? as usize;
        let mut tensor = match entry["dtype"].as_str()? {
            "F32" => Tensor::F32(vec![0.0; len]),
            "U32" => Tensor::U32(vec![0; len]),
            _ => Tensor::U64(vec![0; len]),
        };
        let mut into = match &mut tensor {
            Tensor::F32(x) => TensorMut::F32(x),
            Tensor::U32(x) => TensorMut::U32(x),
            Tensor::U64(x) => TensorMut::U64(x),
        };
        self.copy(name, &mut into).then_some(tensor)
    }
}

impl Tensors for Stored {
    fn copy(&self, name: &str, into: &mut TensorMut<'_>) -> bool {
        fn fill<T>(x: &mut [T]) -> impl FnMut(T) {
            let mut places = x.iter_mut();
            move |value| *places.next().expect("as long as the shape") = value
        }
        let len = match into {
            TensorMut::F32(x) => x.len(),
            TensorMut::U32(x) => x.len(),
            TensorMut::U64(x) => x.len(),
        };
        let shape = self.index.get(name).map(|entry| entry["shape"][0].as_u64());
        if shape != Some(Some(len as u64)) {
            return false;
        }
        let done = match into {
            TensorMut::F32(x) => self.values(name, "F32", f32::from_le_bytes, fill(x)),
            TensorMut::U32(x) => self.values(name, "U32", u32::from_le_bytes, fill(x)),
            TensorMut::U64(x) => self.values(name, "U64", u64::from_le_bytes, fill(x)),
        };
        done.is_some()
    }
}

/// Writes tensors as safetensors without a copy of them in memory; with `meta` and a checksum.
pub fn write(path: &Path, meta: Option<&Value>, walk: Walk<'_>) -> Result<()> {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    let mut place = |name: &str, dtype: &str, shape: usize, bytes: usize| {
        let entry = json!({ "dtype": dtype, "shape": [shape], "data_offsets": [end, end + bytes] });
        header.insert(name.into(), entry);
        end += bytes;
    };
    walk(&mut |name, slice| match slice {
        Slice::F32(x) => place(name, "F32", x.len(), 4 * x.len()),
        Slice::U32(x) => place(name, "U32", x.len(), 4 * x.len()),
        Slice::U64(x) => place(name, "U64", x.len(), 8 * x.len()),
    });
    if let Some(meta) = meta {
        place("sha256", "U8", 32, 32);
        header.insert("__metadata__".into(), json!({ "embc": meta.to_string() }));
    }
    let mut header = Value::from(header).to_string();
    // The data starts aligned.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    Ok(embc_data::atomic::write(path, |file| {
        let (mut sum, mut result) = (Sha256::new(), Ok(()));
        let mut put = |bytes: &[u8]| {
            if meta.is_some() {
                sum.update(bytes);
            }
            if result.is_ok() {
                result = file.write_all(bytes);
            }
        };
        put(&(header.len() as u64).to_le_bytes());
        put(header.as_bytes());
        walk(&mut |_, slice| match slice {
            Slice::F32(x) => in_blocks(x, &mut put, |x| x.to_le_bytes()),
            Slice::U32(x) => in_blocks(x, &mut put, |x| x.to_le_bytes()),
            Slice::U64(x) => in_blocks(x, &mut put, |x| x.to_le_bytes()),
        });
        if meta.is_some() {
            result = result.and_then(|()| file.write_all(&sum.finalize()));
        }
        result.map_err(|error| embc_data::Error::io(path, &error))
    })?)
}

fn in_blocks<T: Copy, const N: usize>(
    values: &[T],
    put: &mut dyn FnMut(&[u8]),
    bytes: fn(T) -> [u8; N],
) {
    let mut buffer = Vec::with_capacity(values.len().min(1 << 16) * N);
    for values in values.chunks(1 << 16) {
        buffer.clear();
        values.iter().for_each(|&x| buffer.extend_from_slice(&bytes(x)));
        put(&buffer);
    }
}

/// SHA-256 over names and bytes of all weights, pointers and codes.
pub fn weights_hash(net: &mut Net) -> String {
    let mut sha256 = Sha256::new();
    net.state(&mut |name, tensor| {
        if is_optimizer(name) {
            return;
        }
        sha256.update(name.as_bytes());
        match tensor {
            TensorMut::F32(x) => x.iter().for_each(|x| sha256.update(x.to_le_bytes())),
            TensorMut::U32(x) => x.iter().for_each(|x| sha256.update(x.to_le_bytes())),
            TensorMut::U64(x) => x.iter().for_each(|x| sha256.update(x.to_le_bytes())),
        }
    });
    embc_data::hex(&sha256.finalize())[..16].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_others_and_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let floats: Vec<f32> = (0..100_000).map(|i| i as f32 / 7.0).collect();
        let mut walk = |visit: &mut dyn FnMut(&str, Slice<'_>)| {
            visit("floats", Slice::F32(&floats));
            visit("codes", Slice::U32(&[7]));
            visit("none", Slice::F32(&[]));
            visit("seeds", Slice::U64(&[u64::MAX, 3]));
        };
        write(&path, None, &mut walk).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.len(), 4, "no checksum without metadata");
        assert_eq!(read.tensor("floats").unwrap().data()[4..8], floats[1].to_le_bytes());
        assert!(Stored::open(&path).is_err());

        write(&path, Some(&json!({})), &mut walk).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(safetensors::SafeTensors::deserialize(&bytes).unwrap().len(), 5);
        let stored = Stored::open(&path).unwrap();
        assert_eq!(stored.tensor("floats"), Some(Tensor::F32(floats.clone())));
        assert_eq!(stored.tensor("codes"), Some(Tensor::U32(vec![7])));
        assert_eq!(stored.tensor("none"), Some(Tensor::F32(vec![])));
        assert_eq!(stored.tensor("seeds"), Some(Tensor::U64(vec![u64::MAX, 3])));
        assert_eq!(stored.tensor("other"), None);
        assert!(!stored.copy("codes", &mut TensorMut::U32(&mut [0, 0])), "another shape");
        assert!(!stored.copy("codes", &mut TensorMut::F32(&mut [0.0])), "another type");
    }
}
