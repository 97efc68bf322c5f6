//! Hashes of ids in a program: computed in integers, or listed for all ids.

use super::{Graph, HashAs, Reads};
use crate::hash::{Hash, HashFamily};
use crate::packed::Packed;
use embc_device::program::{Int, Node, Op};
use std::borrow::Cow;

impl Graph<'_> {
    /// What each id comes to, `width` integers below `bound`, listed for all ids.
    pub fn listed(
        &mut self,
        name: &str,
        bound: u64,
        width: usize,
        of: impl Fn(u32, usize) -> u32,
    ) -> Node {
        let Reads::Ids { x, offset, vocab } = self.reads else { panic!("{name}: no ids") };
        let len = u64::from(vocab) * width as u64;
        // In whole bytes, so that nothing has to be shifted, but for single bits.
        let bound = [2, 1 << 8, 1 << 16, 1 << 32].into_iter().find(|&most| bound <= most);
        let mut packed = Packed::zeros(len, bound.expect("rows are below 2^32"));
        for id in 0..vocab {
            for j in 0..width {
                packed.set(id as usize * width + j, of(id + offset, j));
            }
        }
        // Inputs on one table list ids of their own.
        let name = format!("{name}/of {offset}..{}", offset + vocab);
        let tensor = self.packed(&name, len, width, Cow::Owned(packed));
        self.op(Op::Unpack { x, tensor })
    }

    /// The rows that a hash sends ids to.
    pub fn hash(&mut self, ids: Node, name: &str, hash: &Hash) -> Node {
        let (family, key, rows) = hash.parts();
        match (family, self.hash_as) {
            (HashFamily::Mod, _) => match u32::try_from(rows) {
                Ok(rows) => self.int(ids, Int::Mod, rows),
                Err(_) => ids,
            },
            (_, HashAs::Remap) => self.listed(name, rows, 1, |id, _| hash.row(id)),
            (HashFamily::Mix64, _) => self.op(Op::Mix64 { x: ids, key, rows }),
            (HashFamily::Poly31, _) => self.op(Op::Poly31 { x: ids, key, rows }),
        }
    }

    /// A keyed hash of ids below `rows`.
    pub fn mix64(&mut self, ids: Node, name: &str, key: u64, rows: u64) -> Node {
        match self.hash_as {
            HashAs::Graph => self.op(Op::Mix64 { x: ids, key, rows }),
            HashAs::Remap => self.listed(name, rows, 1, |id, _| {
                crate::hash::scaled(crate::hash::mix64(u64::from(id) ^ key), rows)
            }),
        }
    }

    /// Keyed hashes of ids and blocks, below `rows` [N × blocks].
    pub fn blocks(&mut self, ids: Node, name: &str, key: u64, rows: u64, blocks: usize) -> Node {
        match self.hash_as {
            HashAs::Graph => self.op(Op::Blocks { x: ids, key, rows, width: blocks as u32 }),
            HashAs::Remap => self.listed(name, rows, blocks, |id, b| {
                crate::hash::scaled(crate::hash::of_block(id, key, b), rows)
            }),
        }
    }

    /// −1 or 1 of each id, as a keyed hash says.
    pub fn signs(&mut self, ids: Node, name: &str, key: u64) -> Node {
        match self.hash_as {
            HashAs::Graph => self.op(Op::Signs { x: ids, key }),
            HashAs::Remap => {
                self.listed_signs(name, 1, |id, _| crate::hash::mix64(u64::from(id) ^ key))
            }
        }
    }

    /// −1 or 1 of each id and block [N × blocks].
    pub fn block_signs(&mut self, ids: Node, name: &str, key: u64, blocks: usize) -> Node {
        match self.hash_as {
            HashAs::Graph => self.op(Op::BlockSigns { x: ids, key, width: blocks as u32 }),
            HashAs::Remap => {
                self.listed_signs(name, blocks, |id, b| crate::hash::of_block(id, key, b))
            }
        }
    }

    fn listed_signs(&mut self, name: &str, width: usize, of: impl Fn(u32, usize) -> u64) -> Node {
        let x = self.listed(name, 2, width, |id, b| (of(id, b) & 1) as u32);
        let tensor = self.floats("signs", 2, vec![1.0, -1.0].into());
        self.op(Op::Gather { x, tensor })
    }

    /// Numbers of mean 0 and variance 1 of each id [N × width].
    pub fn noise(&mut self, ids: Node, key: u64, width: usize) -> Node {
        if self.hash_as == HashAs::Remap {
            self.refuse(format!(
                "the input of dhe is {width} hashes of an id, as floats: listed for all ids they would be larger than the full table; use --hash-as graph"
            ));
        }
        self.op(Op::Noise { x: ids, key, width: width as u32 })
    }
}
