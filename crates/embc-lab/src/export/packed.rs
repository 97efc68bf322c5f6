//! The packed file, `model.embc`, which `embc-device` maps.

use super::{BOUND, Checked, Exported, Format, Stated};
use crate::sample::Sample;
use anyhow::{Context, Result, bail};
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
        let path = folder.join(FILE);
        let (mut header, blobs) = (stated.header.clone(), stated.blobs().collect::<Vec<&[u8]>>());
        embc_data::atomic::write(&path, |out| {
            file::write(&mut header, &blobs, out)
                .map_err(|error| embc_data::Error::io(&path, &error))
        })?;
        let checked = check(&path, stated).with_context(|| path.display().to_string())?;
        Ok(Exported { files: vec![FILE.into()], checked: Some(checked) })
    }
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
        bail!("what was written says other things than the model: a value is off by {worst:.1e}");
    }
    Ok(Checked { rows: sample.size, worst })
}

/// The bags of the first inputs.
pub fn bags(sample: &Sample, inputs: usize) -> Vec<Bag<'_>> {
    sample.fields[..inputs].iter().map(|bag| Bag { ids: &bag.ids, offsets: &bag.offsets }).collect()
}

/// The largest difference of two lists, over 1 + size.
pub fn worst(ours: &[f32], theirs: &[f32]) -> f64 {
    let off = |(a, b): (&f32, &f32)| f64::from((a - b).abs()) / (1.0 + f64::from(a.abs()));
    ours.iter().zip(theirs).map(off).fold(0.0, f64::max)
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
