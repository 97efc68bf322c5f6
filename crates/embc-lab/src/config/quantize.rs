//! `quantize` of a scheme: a storage after training, or bits that rows already train in.

use embc_core::quantize::Storage;
use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt::{Formatter, Result as Written};

/// How parameters are stored.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema)]
#[schemars(untagged)]
pub enum Quantize {
    /// After training.
    After(Storage),
    /// In so many bits.
    Bits(Narrow),
}

/// A narrow storage, and whether values already train so.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Narrow {
    /// Of a value: 8, 4 or 2.
    pub bits: Bits,
    /// Already while it trains: no wider copy is kept.
    #[serde(default)]
    pub train: bool,
}

/// Bits of a value.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "u8")]
#[schemars(with = "u8")]
pub struct Bits(Storage);

impl TryFrom<u8> for Bits {
    type Error = String;
    fn try_from(bits: u8) -> Result<Self, String> {
        let of = [Storage::Int2, Storage::Int4, Storage::Int8];
        let storage = of.into_iter().find(|storage| storage.bits() == u32::from(bits));
        storage.map(Self).ok_or_else(|| format!("bits = {bits} is none of 8, 4 and 2"))
    }
}

impl Quantize {
    /// What a value takes in the end.
    pub fn storage(self) -> Storage {
        match self {
            Self::After(storage) | Self::Bits(Narrow { bits: Bits(storage), .. }) => storage,
        }
    }

    /// True where values are stored so already while they train.
    pub fn trains(self) -> bool {
        matches!(self, Self::Bits(Narrow { train: true, .. }))
    }

    /// What it adds to a label.
    pub fn label(self) -> String {
        format!("{}{}", self.storage().name(), if self.trains() { " trained" } else { "" })
    }
}

impl<'de> Deserialize<'de> for Quantize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Quantize;
            fn expecting(&self, f: &mut Formatter<'_>) -> Written {
                f.write_str("\"fp16\", \"int8\", \"int4\", \"int2\", or { bits = 8, train = true }")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Quantize, E> {
                Storage::deserialize(StrDeserializer::new(name)).map(Quantize::After)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Quantize, A::Error> {
                Narrow::deserialize(MapAccessDeserializer::new(map)).map(Quantize::Bits)
            }
        }
        from.deserialize_any(Either)
    }
}
