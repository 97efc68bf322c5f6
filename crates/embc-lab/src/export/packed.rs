//! The packed file, `model.embc`, which `embc-device` maps.

use super::{BOUND, Checked, Exported, Format, Stated};
use crate::sample::Sample;
use anyhow::{Result, bail};
use embc_core::graph::device::{Bag, Model, Reader, file};
use std::path::Path;
use std::sync::Arc;

pub(super) struct Packed;

/// The name of the file.
pub const FILE: &str = "model.embc";

impl Format for Packed {
    fn name(&self) -> &'static str {
        "packed"
    }
    fn doc(&self) -> &'static str {
        "model.embc, one mapped file for embc-device: Rust, C, and what calls C"
    }
    fn write(&self, stated: &Stated<'_>, folder: &Path) -> Result<Exported> {
        // What was there stays, until what takes its place has been checked.
        let scratch = tempfile::tempdir_in(folder)?;
        let path = scratch.path().join(FILE);
        let checked = pack(stated, &path)?;
        std::fs::rename(&path, folder.join(FILE))?;
        embc_data::atomic::sync_folder(folder)?;
        Ok(Exported { files: vec![FILE.into()], checked: Some(checked) })
    }
}

/// Writes a packed file and checks it.
pub fn pack(stated: &Stated<'_>, path: &Path) -> Result<Checked> {
    let (mut header, blobs) = (stated.header.clone(), stated.blobs().collect::<Vec<&[u8]>>());
    embc_data::atomic::write(path, |out| {
        file::write(&mut header, &blobs, out).map_err(|error| embc_data::Error::io(path, &error))
    })?;
    check(path, stated)
}

/// Reads the file again, and compares what it says of the model's test rows.
fn check(path: &Path, stated: &Stated<'_>) -> Result<Checked> {
    let model = Model::open(path)?;
    model.verify()?;
    let mut reader = Reader::new(Arc::new(model))?;
    let sample = stated.model.sample()?;
    let worst = match reader.model().outputs() {
        0 => rows(&mut reader, stated, &sample)?,
        outputs => {
            let mut scores = vec![0.0; sample.size * outputs];
            let bags = bags(&sample, reader.model().header().inputs.len());
            reader.score(&bags, &sample.dense, &mut scores)?;
            worst(&sample.scores, &scores)
        }
    };
    if worst > BOUND {
        bail!(
            "what was packed says other things than the model: a value is off by {worst:.1e} of 1 + its size, more than {BOUND:.0e}"
        );
    }
    Ok(Checked { rows: sample.size, worst })
}

/// The bags of the first inputs.
pub fn bags(sample: &Sample, inputs: usize) -> Vec<Bag<'_>> {
    sample.fields[..inputs].iter().map(|bag| Bag { ids: &bag.ids, offsets: &bag.offsets }).collect()
}

/// The largest difference of two lists, over 1 + size; infinite where only one of two is a number.
pub fn worst(ours: &[f32], theirs: &[f32]) -> f64 {
    let off = |(a, b): (&f32, &f32)| match f64::from((a - b).abs()) / (1.0 + f64::from(a.abs())) {
        _ if a == b || a.is_nan() && b.is_nan() => 0.0,
        off if off.is_finite() => off,
        _ => f64::INFINITY,
    };
    let missing = if ours.len() == theirs.len() { 0.0 } else { f64::INFINITY };
    ours.iter().zip(theirs).map(off).fold(missing, f64::max)
}

/// The same of the rows of each input's ids.
fn rows(reader: &mut Reader, stated: &Stated<'_>, sample: &Sample) -> Result<f64> {
    let mut most: f64 = 0.0;
    for input in 0..reader.model().header().inputs.len() {
        let ids = &sample.fields[input].ids;
        let mut theirs = vec![0.0; ids.len() * reader.model().width(input)];
        reader.rows(input, ids, &mut theirs)?;
        let mut ours = vec![0.0; theirs.len()];
        stated.model.net().layer.rows_of(input, ids, &mut ours);
        most = most.max(worst(&ours, &theirs));
    }
    Ok(most)
}
