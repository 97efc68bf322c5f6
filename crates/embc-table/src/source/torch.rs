//! PyTorch's files are pickles, which run what they hold when they are read: refused, with the line
//! that makes a safetensors file of them.

use super::Format;
use crate::table::Table;
use anyhow::{Result, bail};
use std::path::Path;

pub(super) struct Torch;

impl Format for Torch {
    fn name(&self) -> &'static str {
        "torch"
    }
    fn doc(&self) -> &'static str {
        "PyTorch's .pt is refused: reading it would run what it holds"
    }
    fn is(&self, path: &Path, head: &[u8]) -> bool {
        let named = path
            .extension()
            .is_some_and(|e| ["pt", "pth", "ckpt", "pkl", "bin"].iter().any(|known| e == *known));
        named && (head.starts_with(b"PK") || head.starts_with(b"\x80"))
    }
    fn open(&self, path: &Path, _: Option<&str>) -> Result<Table> {
        let file = path.display();
        bail!(
            "a pickle, which runs what it holds when it is read: embc does not. If you trust it: python -c \"import torch; from safetensors.torch import save_file; save_file({{k: v.contiguous() for k, v in torch.load('{file}', weights_only=True).items()}}, 'table.safetensors')\""
        )
    }
}
