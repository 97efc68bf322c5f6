//! Little-endian numbers in a header, and back; lists are preceded by their length.

use crate::{Error, wrong};

/// What is still to be read of a header.
pub struct Read<'a>(pub &'a [u8]);

impl<'a> Read<'a> {
    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let Some((head, rest)) = self.0.split_at_checked(n) else {
            return wrong("its header is cut off");
        };
        self.0 = rest;
        Ok(head)
    }
}

/// A part of a header.
pub trait Field: Sized {
    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads it.
    fn get(from: &mut Read<'_>) -> Result<Self, Error>;
}

macro_rules! numbers {
    ($($type:ty),*) => {
        $(impl Field for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(from: &mut Read<'_>) -> Result<Self, Error> {
                let bytes = from.take(size_of::<Self>())?;
                Ok(Self::from_le_bytes(bytes.try_into().expect("so many bytes")))
            }
        })*
    };
}

numbers!(u8, u32, u64, f32, f64);

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(from: &mut Read<'_>) -> Result<Self, Error> {
        match u8::get(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => wrong("neither true nor false"),
        }
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        self.iter().for_each(|value| value.put(out));
    }
    fn get(from: &mut Read<'_>) -> Result<Self, Error> {
        bool::get(from)?.then(|| T::get(from)).transpose()
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        self.iter().for_each(|value| value.put(out));
    }
    fn get(from: &mut Read<'_>) -> Result<Self, Error> {
        let n = u32::get(from)? as usize;
        // Nothing is smaller than a byte: a length that lies costs no memory.
        if n > from.0.len() {
            return wrong("its header is cut off");
        }
        let mut all = Vec::new();
        for _ in 0..n {
            all.push(T::get(from)?);
        }
        Ok(all)
    }
}

impl Field for String {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_bytes().to_vec().put(out);
    }
    fn get(from: &mut Read<'_>) -> Result<Self, Error> {
        String::from_utf8(Vec::get(from)?).or_else(|_| wrong("a name is no UTF-8"))
    }
}

/// Fields one after the other.
macro_rules! record {
    ($name:ident { $($field:ident),* }) => {
        impl Field for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn get(from: &mut Read<'_>) -> Result<Self, Error> {
                Ok(Self { $($field: Field::get(from)?),* })
            }
        }
    };
}

pub(crate) use record;

/// FNV-1a over words of 8 bytes, folded: it finds accidents, not attacks.
pub fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let step = |sum: u64, word: u64| {
        let sum = (sum ^ word).wrapping_mul(0x0000_0100_0000_01B3);
        sum ^ (sum >> 29)
    };
    let sum =
        words.iter().fold(0xCBF2_9CE4_8422_2325, |sum, word| step(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(step(sum, bytes.len() as u64), |sum, &byte| step(sum, byte.into()))
}
