//! Named tensors in safetensors files, written as they are walked and read where they are wanted:
//! two copies of a table need not fit into memory. Where a file has metadata, its last tensor is a
//! SHA-256 of all that comes before.

use anyhow::{Context, Result, bail};
use bytemuck::NoUninit;
use embc_core::net::Net;
use embc_core::state::{HasState, Tensor, TensorMut, TensorRef, Tensors, fits, is_optimizer};
use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;

/// Shows tensors, the same each time.
pub type Walk<'a> = &'a mut dyn FnMut(&mut dyn FnMut(&str, TensorRef<'_>));

/// Values at a time on their way from or to a file.
const BLOCK: usize = 1 << 16;
/// The name of the checksum.
const SHA: &str = "sha256";
/// The key of embc's own metadata.
const OWN: &str = "embc";
/// No header is longer: as in the safetensors crate.
const LONGEST_HEADER: u64 = 100_000_000;

/// A file of tensors, which are read when they are asked for.
pub struct Stored {
    /// One reads at a time: a file has one position, whoever moves it.
    file: Mutex<File>,
    header: Metadata,
    /// Where the tensors begin.
    start: u64,
}

/// The header of a safetensors file, and where its tensors begin; they are as long as it says.
pub fn header_of(file: &mut File) -> Result<(Metadata, u64)> {
    let length = file.metadata()?.len();
    let mut size = [0; 8];
    file.read_exact(&mut size).context("it is cut off")?;
    let size = u64::from_le_bytes(size);
    if size > LONGEST_HEADER || size > length.saturating_sub(8) {
        bail!("it is cut off, or no safetensors file");
    }
    let mut head = vec![0; size as usize];
    file.read_exact(&mut head)?;
    let header: Metadata = serde_json::from_slice(&head).context("its header is damaged")?;
    let start = 8 + size;
    if header.data_len() as u64 != length - start {
        bail!("it is cut off, or has more than its header says");
    }
    Ok((header, start))
}

impl Stored {
    /// Opens a file without a look at its tensors.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let (header, start) = header_of(&mut file)?;
        Ok(Self { file: Mutex::new(file), header, start })
    }

    /// Opens a file that has a checksum, which is checked.
    pub fn checked(path: &Path) -> Result<Self> {
        let mut stored = Self::open(path)?;
        let (file, mut sum) = (stored.file.get_mut().expect("not shared yet"), Sha256::new());
        let body = file.metadata()?.len().checked_sub(32).context("it is cut off")?;
        file.seek(SeekFrom::Start(0))?;
        let (mut buffer, mut left) = (vec![0; 1 << 20], body as usize);
        while left > 0 {
            let block = &mut buffer[..left.min(1 << 20)];
            file.read_exact(block)?;
            sum.update(&*block);
            left -= block.len();
        }
        let mut expect = [0; 32];
        file.read_exact(&mut expect)?;
        if sum.finalize()[..] != expect {
            bail!("its checksum does not match");
        }
        Ok(stored)
    }

    /// What embc wrote beside the tensors.
    pub fn meta(&self) -> Result<Value> {
        let meta = self.header.metadata().as_ref().and_then(|meta| meta.get(OWN));
        Ok(serde_json::from_str(meta.context("not of embc")?)?)
    }

    /// The names of all tensors but the checksum, in their order.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys().into_iter().filter(|name| name != SHA).collect()
    }

    /// Reads the values of a tensor of the type `dtype` in order; none where there is no such tensor.
    fn values<T, const N: usize>(
        &self,
        name: &str,
        dtype: Dtype,
        of: fn([u8; N]) -> T,
        mut take: impl FnMut(T),
    ) -> Option<()> {
        let info = self.header.info(name).filter(|info| info.dtype == dtype)?;
        let mut file = self.file.lock().expect("readers do not panic");
        file.seek(SeekFrom::Start(self.start + info.data_offsets.0 as u64)).ok()?;
        let mut left: usize = info.shape.iter().product();
        let mut buffer = vec![0; left.min(BLOCK) * N];
        while left > 0 {
            let block = &mut buffer[..left.min(BLOCK) * N];
            file.read_exact(block).ok()?;
            block.chunks_exact(N).for_each(|x| take(of(x.try_into().expect("N bytes"))));
            left -= block.len() / N;
        }
        Some(())
    }

    /// A copy of a tensor; none where there is none of that name, or it is of another type.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        let info = self.header.info(name)?;
        let mut tensor = match info.dtype {
            Dtype::F32 => Tensor::F32(ArrayD::zeros(&info.shape[..])),
            Dtype::U32 => Tensor::U32(ArrayD::zeros(&info.shape[..])),
            Dtype::U64 => Tensor::U64(ArrayD::zeros(&info.shape[..])),
            _ => return None,
        };
        let mut into = match &mut tensor {
            Tensor::F32(x) => TensorMut::F32(x.view_mut()),
            Tensor::U32(x) => TensorMut::U32(x.view_mut()),
            Tensor::U64(x) => TensorMut::U64(x.view_mut()),
        };
        self.copy(name, &mut into).then_some(tensor)
    }
}

impl Tensors for Stored {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.header.info(name).map(|info| info.shape.clone())
    }

    fn copy(&self, name: &str, into: &mut TensorMut<'_>) -> bool {
        fn fill<'a, T>(x: &'a mut ArrayViewMutD<'_, T>) -> impl FnMut(T) + 'a {
            let mut places = x.iter_mut();
            move |value| *places.next().expect("as many as the shape says") = value
        }
        let is = self.shape(name);
        if is.is_none_or(|is| !fits(&is, into.view().shape())) {
            return false;
        }
        let done = match into {
            TensorMut::F32(x) => self.values(name, Dtype::F32, f32::from_le_bytes, fill(x)),
            TensorMut::U32(x) => self.values(name, Dtype::U32, u32::from_le_bytes, fill(x)),
            TensorMut::U64(x) => self.values(name, Dtype::U64, u64::from_le_bytes, fill(x)),
        };
        done.is_some()
    }
}

/// The header of a file of such tensors.
fn header(meta: Option<&Value>, walk: Walk<'_>) -> Result<String> {
    let (mut tensors, mut at) = (Vec::new(), 0);
    let mut place = |name: &str, dtype: Dtype, shape: &[usize]| {
        let end = at + shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let info = TensorInfo { dtype, shape: shape.to_vec(), data_offsets: (at, end) };
        tensors.push((name.to_string(), info));
        at = end;
    };
    walk(&mut |name, tensor| {
        let dtype = match tensor {
            TensorRef::F32(_) => Dtype::F32,
            TensorRef::U32(_) => Dtype::U32,
            TensorRef::U64(_) => Dtype::U64,
        };
        place(name, dtype, tensor.shape());
    });
    if meta.is_some() {
        place(SHA, Dtype::U8, &[32]);
    }
    let names: BTreeSet<&String> = tensors.iter().map(|(name, _)| name).collect();
    if names.len() < tensors.len() {
        bail!("two tensors of one name");
    }
    let meta = meta.map(|meta| HashMap::from([(OWN.to_string(), meta.to_string())]));
    let mut header = serde_json::to_string(&Metadata::new(meta, tensors)?)?;
    // The data starts aligned.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    Ok(header)
}

/// Writes tensors, and with `meta` a checksum; whole or not at all.
pub fn write(path: &Path, meta: Option<&Value>, walk: Walk<'_>) -> Result<()> {
    let header = header(meta, walk)?;
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
        walk(&mut |_, tensor| match tensor {
            TensorRef::F32(x) => bytes_of(&x, &mut put, f32::to_le_bytes),
            TensorRef::U32(x) => bytes_of(&x, &mut put, u32::to_le_bytes),
            TensorRef::U64(x) => bytes_of(&x, &mut put, u64::to_le_bytes),
        });
        if meta.is_some() {
            result = result.and_then(|()| file.write_all(&sum.finalize()));
        }
        result.map_err(|error| embc_data::Error::io(path, &error))
    })?)
}

/// Puts the little-endian bytes of values, in their order.
fn bytes_of<T: NoUninit, const N: usize>(
    values: &ArrayViewD<'_, T>,
    put: &mut dyn FnMut(&[u8]),
    bytes: fn(T) -> [u8; N],
) {
    if cfg!(target_endian = "little")
        && let Some(values) = values.as_slice()
    {
        return put(bytemuck::cast_slice(values));
    }
    let mut buffer = Vec::with_capacity(values.len().min(BLOCK) * N);
    for &value in values {
        buffer.extend_from_slice(&bytes(value));
        if buffer.len() == BLOCK * N {
            put(&buffer);
            buffer.clear();
        }
    }
    put(&buffer);
}

/// SHA-256 over names and bytes of all weights, pointers and codes.
pub fn weights_hash(net: &mut Net) -> String {
    let mut sha256 = Sha256::new();
    net.state(&mut |name, tensor| {
        if is_optimizer(name) {
            return;
        }
        sha256.update(name.as_bytes());
        let mut put = |bytes: &[u8]| sha256.update(bytes);
        match tensor.view() {
            TensorRef::F32(x) => bytes_of(&x, &mut put, f32::to_le_bytes),
            TensorRef::U32(x) => bytes_of(&x, &mut put, u32::to_le_bytes),
            TensorRef::U64(x) => bytes_of(&x, &mut put, u64::to_le_bytes),
        }
    });
    embc_data::hex(&sha256.finalize())[..16].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read_by_others_and_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let floats: Vec<f32> = (0..100_000).map(|i| i as f32 / 7.0).collect();
        let floats = ArrayD::from_shape_vec(vec![25_000, 4], floats).unwrap();
        let all = [
            ("floats", Tensor::F32(floats.clone())),
            ("codes", Tensor::U32(ArrayD::from_elem(vec![1], 7))),
            ("none", Tensor::from(Vec::<f32>::new())),
            ("seeds", Tensor::from(vec![u64::MAX, 3])),
        ];
        let mut walk = |visit: &mut dyn FnMut(&str, TensorRef<'_>)| {
            all.iter().for_each(|(name, tensor)| visit(name, tensor.view()));
        };
        write(&path, None, &mut walk).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.len(), 4, "no checksum without metadata");
        assert_eq!(read.tensor("floats").unwrap().shape(), [25_000, 4]);
        assert_eq!(read.tensor("floats").unwrap().data()[4..8], floats[[0, 1]].to_le_bytes());
        assert!(Stored::checked(&path).is_err());
        assert_eq!(Stored::open(&path).unwrap().names(), all.each_ref().map(|(name, _)| *name));

        write(&path, Some(&json!({})), &mut walk).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(SafeTensors::deserialize(&bytes).unwrap().len(), 5);
        let stored = Stored::checked(&path).unwrap();
        for (name, tensor) in &all {
            assert_eq!(stored.tensor(name).as_ref(), Some(tensor));
        }
        assert_eq!(stored.tensor("other"), None);
        assert!(!stored.copy("codes", &mut TensorMut::u32(&mut [0, 0])), "another shape");
        assert!(!stored.copy("codes", &mut TensorMut::rows(&mut [0.0], 1)), "another type");
        for cut in [0, 7, 100, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(Stored::open(&path).is_err(), "{cut} bytes");
        }
    }

    #[test]
    fn threads_read_at_once() {
        use rayon::prelude::*;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let of = |i: usize| Tensor::from(vec![i as f32; 1000 + i]);
        write(&path, None, &mut |visit| (0..64).for_each(|i| visit(&i.to_string(), of(i).view())))
            .unwrap();
        let stored = Stored::open(&path).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        pool.install(|| {
            (0..6400usize).into_par_iter().for_each(|i| {
                assert_eq!(stored.tensor(&(i % 64).to_string()), Some(of(i % 64)));
            });
        });
    }
}
