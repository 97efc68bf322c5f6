//! A file larger than memory should be: opening it reads its header alone.

use embc_device::file::{Header, Input};
use embc_device::program::{Node, Op, TensorId};
use embc_device::tensor::{Stored, Tensor};
use embc_device::{Model, Reader, Transform};
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Instant;

/// A table of 1 GiB: 4 Mi rows of 64 floats.
const ROWS: u64 = 1 << 22;
const WIDTH: u32 = 64;

/// A file of such a table, of which only the last row is written: the rest is a hole.
fn file(path: &std::path::Path) {
    let table = Tensor {
        name: "table".into(),
        rows: ROWS,
        width: WIDTH,
        stored: Stored::Float,
        first: 0,
        values: 0,
        ranges: None,
    };
    let ops = vec![Op::Ids {}, Op::Gather { x: Node(0), tensor: TensorId(0) }];
    let mut header = Header {
        about: "a gigabyte".into(),
        blobs: Vec::new(),
        tensors: vec![table],
        inputs: vec![Input {
            name: "item".into(),
            vocab: ROWS as u32,
            several: false,
            table: ops,
            vocabulary: None,
        }],
        mean: true,
        transform: Transform::Raw,
        features: Vec::new(),
        model: Vec::new(),
        vocabularies: Vec::new(),
    };
    header.place(&[ROWS * u64::from(WIDTH) * 4]);
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&header.start(0)).unwrap();
    let end = header.blobs[0].offset + header.blobs[0].length;
    assert_eq!(header.blobs[0].offset % 4096, 0, "tables begin at a page");
    file.seek(SeekFrom::Start(end - 4 * u64::from(WIDTH))).unwrap();
    (0..WIDTH).for_each(|i| file.write_all(&(i as f32).to_le_bytes()).unwrap());
}

/// Bytes of this process that no file backs; none where the system does not say.
fn anonymous() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?)
}

#[test]
fn a_gigabyte_opens_in_no_memory() {
    let path = std::env::temp_dir().join(format!("embc-large-{}.embc", std::process::id()));
    file(&path);
    let before = anonymous();
    let start = Instant::now();
    let model = Arc::new(Model::open(&path).unwrap());
    let mut reader = Reader::new(model).unwrap();
    let took = start.elapsed();
    let mut row = [0.0; WIDTH as usize];
    reader.rows(0, &[ROWS as u32 - 1], &mut row).unwrap();
    let after = anonymous();
    std::fs::remove_file(&path).unwrap();
    assert!((0..WIDTH as usize).all(|i| row[i] == i as f32));
    println!("opened in {took:?}");
    if let (Some(before), Some(after)) = (before, after) {
        assert!(after.saturating_sub(before) < 4 << 20, "{before} {after}");
    }
}
