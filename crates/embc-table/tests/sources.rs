//! Files of every format, well and badly made: rows are those that were written, or an error says what
//! is wrong.

use embc_table::source::open;
use embc_table::table::Table;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const ROWS: usize = 20;
const DIM: usize = 6;

/// The value at a place; exact in half precision.
fn value(row: usize, column: usize) -> f32 {
    (row * DIM + column) as f32 / 8.0 - 5.0
}

fn values() -> Vec<f32> {
    (0..ROWS * DIM).map(|at| value(at / DIM, at % DIM)).collect()
}

/// All rows of a table, read in pieces.
fn rows(table: &Table) -> Vec<f32> {
    let mut all = vec![f32::NAN; table.rows * table.dim];
    for (first, piece) in (0..table.rows).step_by(7).zip(all.chunks_mut(7 * table.dim)) {
        table.source.read(first, piece).unwrap();
    }
    all
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

#[track_caller]
fn refused(path: &Path, tensor: Option<&str>, text: &str) {
    let error = match open(path, tensor) {
        Ok(_) => panic!("{} is read", path.display()),
        Err(error) => format!("{error:#}"),
    };
    assert!(error.contains(text), "no {text:?} in: {error}");
    assert!(error.contains(&path.file_name().unwrap().to_string_lossy()[..]), "{error}");
}

fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let head = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({shape}), }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((head.len() as u16).to_le_bytes());
    file.extend(head.as_bytes());
    file.extend(data);
    file
}

fn singles() -> Vec<u8> {
    values().iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn halves() -> Vec<u8> {
    values().iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect()
}

#[test]
fn npy_in_both_orders_and_three_widths() {
    let folder = Folder::new();
    let doubles: Vec<u8> = values().iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
    let columns: Vec<u8> =
        (0..DIM * ROWS).flat_map(|at| value(at % ROWS, at / ROWS).to_le_bytes()).collect();
    for (descr, fortran, data) in [
        ("<f4", false, singles()),
        ("<f2", false, halves()),
        ("<f8", false, doubles),
        ("<f4", true, columns),
    ] {
        let table =
            open(&folder.write("t.npy", &npy(descr, fortran, "20, 6", &data)), None).unwrap();
        assert_eq!(rows(&table), values(), "{descr} {fortran}");
        assert_eq!(table.bytes as usize, data.len());
    }
}

#[test]
fn npy_that_is_no_table_is_refused() {
    let folder = Folder::new();
    let whole = npy("<f4", false, "20, 6", &singles());
    for (bytes, text) in [
        (npy(">f4", false, "20, 6", &singles()), "big-endian"),
        (npy("|O", false, "20, 6", &singles()), "objects of Python"),
        (npy("<i4", false, "20, 6", &singles()), "astype"),
        (npy("<f4", false, "120,", &singles()), "two dimensions"),
        (npy("<f4", false, "2, 10, 6", &singles()), "two dimensions"),
        (npy("<f4", false, "21, 6", &singles()), "do not fit"),
        (npy("<f4", false, "0, 6", &[]), "nothing in it"),
        (npy("<f4", false, "99999999999999, 99999999999", &singles()), "do not fit"),
        (npy("<f4", false, "18446744073709551616, 6", &singles()), "two dimensions"),
        (whole[..whole.len() - 1].to_vec(), "cut off"),
        (whole[..40].to_vec(), "cut off"),
        (b"\x93NUMPY\x09\x00aa".to_vec(), "newer"),
    ] {
        refused(&folder.write("t.npy", &bytes), None, text);
    }
    refused(&folder.write("empty.npy", b""), None, "empty");
    refused(&folder.0.path().join("none.npy"), None, "no such file");
    refused(&folder.write("t.npy", &whole), Some("x"), "--tensor");
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn safetensors_by_name() {
    let folder = Folder::new();
    let header = r#"{"a":{"dtype":"F32","shape":[20,6],"data_offsets":[0,480]},"model.embed_tokens.weight":{"dtype":"F16","shape":[20,6],"data_offsets":[480,720]},"bias":{"dtype":"F32","shape":[6],"data_offsets":[720,744]}}"#;
    let data = [singles(), halves(), vec![0; 24]].concat();
    let file = folder.write("t.safetensors", &safetensors(header, &data));
    // The one that is called as embeddings are.
    assert_eq!(open(&file, None).unwrap().stored, "f16");
    for name in [None, Some("a"), Some("model.embed_tokens.weight")] {
        assert_eq!(rows(&open(&file, name).unwrap()), values());
    }
    refused(&file, Some("b"), "it holds a, bias, model.embed_tokens.weight");
    refused(&file, Some("bias"), "two dimensions");
    let two = header.replace("model.embed_tokens.weight", "b");
    refused(&folder.write("t.safetensors", &safetensors(&two, &data)), None, "--tensor: a, b");
    // Headers that lie.
    for (from, to, text) in [
        ("[0,480]", "[0,4800]", ""),
        ("[20,6]", "[2000000,6]", ""),
        ("[480,720]", "[0,240]", ""),
        ("F16", "F61", ""),
    ] {
        let lies = safetensors(&header.replacen(from, to, 1), &data);
        refused(&folder.write("t.safetensors", &lies), Some("a"), text);
    }
    refused(&folder.write("t.safetensors", &safetensors(header, &data[1..])), None, "cut off");
    refused(&folder.write("t.safetensors", &[255; 9]), None, "cut off");
}

#[test]
fn texts_of_glove_and_word2vec() {
    let folder = Folder::new();
    let line = |row: usize| {
        let values: Vec<String> = (0..DIM).map(|column| value(row, column).to_string()).collect();
        values.join(" ")
    };
    let word = |row: usize| if row == 3 { ". . .".to_string() } else { format!("w{row}") };
    let glove: String = (0..ROWS).map(|row| format!("{} {}\n", word(row), line(row))).collect();
    for text in [glove.clone(), format!("20 6\n{glove}"), glove.replace('\n', " \r\n")] {
        let table = open(&folder.write("t.txt", text.as_bytes()), None).unwrap();
        assert_eq!((rows(&table), table.words[3].as_str()), (values(), ". . ."));
    }
    for (text, what) in [
        (glove.replacen("w7 ", "w7 x", 1), "line 8"),
        (glove.replacen("w7 ", "", 1), "line 8"),
        (format!("21 6\n{glove}"), "says 21 rows, and there are 20"),
        ("hello world\n".into(), "no table"),
        ("20 6\n".into(), "0"),
        ("2 1000000000000000000\na 1 2\n".into(), "1000000000000000000 columns"),
    ] {
        refused(&folder.write("t.txt", text.as_bytes()), None, what);
    }
    let mut binary = b"20 6\n".to_vec();
    for row in 0..ROWS {
        binary.extend(
            format!("{}{} ", if row % 2 == 0 { "" } else { "\n" }, word(row).replace(' ', "_"))
                .as_bytes(),
        );
        binary.extend(&singles()[4 * DIM * row..][..4 * DIM]);
    }
    let table = open(&folder.write("t.bin", &binary), None).unwrap();
    assert_eq!((rows(&table), table.words[19].as_str()), (values(), "w19"));
    refused(&folder.write("t.bin", &binary[..binary.len() - 1]), None, "row 19 of 20");
}

#[test]
fn fasttext_with_counts_and_buckets() {
    let folder = Folder::new();
    let model = |quantised: u8, rows: i64| {
        let mut file: Vec<u8> = [793_712_314i32, 12].iter().flat_map(|x| x.to_le_bytes()).collect();
        file.extend([0; 12 * 4 + 8]);
        // 16 words and a label; 4 buckets after them.
        file.extend([17i32, 16, 1].iter().flat_map(|x| x.to_le_bytes()));
        file.extend([1000i64, -1].iter().flat_map(|x| x.to_le_bytes()));
        for i in 0..17i64 {
            let label = i == 16;
            file.extend(format!("{}{i}\0", if label { "__label__" } else { "w" }).as_bytes());
            file.extend((100 - i).to_le_bytes());
            file.push(label.into());
        }
        file.push(quantised);
        file.extend([rows, DIM as i64].iter().flat_map(|x| x.to_le_bytes()));
        file.extend(singles());
        file
    };
    let table = open(&folder.write("t.bin", &model(0, 20)), None).unwrap();
    assert_eq!((rows(&table), table.words.len(), table.words[15].as_str()), (values(), 16, "w15"));
    assert!(table.counts.is_empty(), "counts of buckets are not known");
    let table = open(&folder.write("t.bin", &model(0, 16)), None).unwrap();
    assert_eq!((table.counts[0], table.counts[15]), (100, 85));
    refused(&folder.write("t.bin", &model(1, 20)), None, "quantised already");
    refused(&folder.write("t.bin", &model(0, 21)), None, "do not fit");
    refused(&folder.write("t.bin", &model(0, -1)), None, "-1 rows");
    refused(&folder.write("t.bin", &model(0, 20)[..90]), None, "cut off");
}

#[test]
fn gguf_in_f32_and_q8_0() {
    let folder = Folder::new();
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    };
    let model = |kind: u32, dim: usize, data: &[u8]| {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend([2u64, 3].iter().flat_map(|x| x.to_le_bytes()));
        text(&mut file, "general.name");
        file.extend(8u32.to_le_bytes());
        text(&mut file, "a model");
        text(&mut file, "some.array");
        file.extend([9u32, 4].iter().flat_map(|x| x.to_le_bytes()));
        file.extend(3u64.to_le_bytes());
        file.extend([0; 12]);
        text(&mut file, "tokenizer.ggml.tokens");
        file.extend([9u32, 8].iter().flat_map(|x| x.to_le_bytes()));
        file.extend((ROWS as u64).to_le_bytes());
        (0..ROWS).for_each(|i| text(&mut file, &format!("t{i}")));
        for (name, offset) in [("other", 0u64), ("token_embd.weight", 32)] {
            text(&mut file, name);
            file.extend(2u32.to_le_bytes());
            file.extend([dim as u64, ROWS as u64].iter().flat_map(|x| x.to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend(offset.to_le_bytes());
        }
        file.resize(file.len().next_multiple_of(32) + 32, 7);
        file.extend(data);
        file
    };
    let table = open(&folder.write("t.gguf", &model(0, DIM, &singles())), None).unwrap();
    assert_eq!((rows(&table), table.words[19].as_str()), (values(), "t19"));
    // A half of 0.5 and bytes of 32 values a block.
    let block = |row: usize| -> Vec<u8> {
        let scale = half::f16::from_f32(0.5).to_le_bytes();
        scale.into_iter().chain((0..32).map(|i| (row as i8 - i as i8) as u8)).collect()
    };
    let data: Vec<u8> = (0..ROWS).flat_map(block).collect();
    let table = open(&folder.write("t.gguf", &model(8, 32, &data)), None).unwrap();
    let expect: Vec<f32> =
        (0..ROWS * 32).map(|at| 0.5 * ((at / 32) as f32 - (at % 32) as f32)).collect();
    assert_eq!(rows(&table), expect);
    refused(&folder.write("t.gguf", &model(12, 32, &data)), None, "type 12 of ggml");
    refused(&folder.write("t.gguf", &model(8, DIM, &data)), None, "no multiple of 32");
    let whole = model(0, DIM, &singles());
    for cut in [5, 30, 100, 400, whole.len() - 1] {
        refused(&folder.write("t.gguf", &whole[..cut]), None, "cut off");
    }
}

#[test]
fn parquet_with_lists_as_pyarrow_writes_it() {
    let own = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/own").join(name);
    let table = open(&own("lists.parquet"), None).unwrap();
    assert_eq!((rows(&table), table.words[19].as_str()), (values(), "w19"));
    assert_eq!(rows(&open(&own("fixed.parquet"), Some("fixed")).unwrap()), values());
    refused(&own("fixed.parquet"), None, "--tensor: fixed, other");
    refused(&own("missing.parquet"), None, "row 1, column vector: a value is missing");
    refused(&own("ragged.parquet"), None, "1 values, where the first row has 2");
    let folder = Folder::new();
    let whole = std::fs::read(own("lists.parquet")).unwrap();
    refused(&folder.write("t.parquet", &whole[..whole.len() / 2]), None, "t.parquet");
}

#[test]
fn model2vec_with_shared_vectors() {
    let folder = Folder::new();
    let header = r#"{"embeddings":{"dtype":"I8","shape":[3,2],"data_offsets":[0,6]},"mapping":{"dtype":"I64","shape":[4],"data_offsets":[6,38]},"weights":{"dtype":"F32","shape":[4],"data_offsets":[38,54]}}"#;
    let data = |last: i64| {
        let mut data: Vec<u8> = [1i8, -2, 3, 4, 127, -128].iter().map(|x| *x as u8).collect();
        data.extend([0i64, 2, 1, last].iter().flat_map(|x| x.to_le_bytes()));
        data.extend([1.0f32, 0.5, 2.0, 1.0].iter().flat_map(|x| x.to_le_bytes()));
        data
    };
    folder.write("model.safetensors", &safetensors(header, &data(0)));
    folder.write("tokenizer.json", br#"{"model":{"vocab":{"a":0,"b":1,"c":2,"d":3}}}"#);
    let table = open(folder.0.path(), None).unwrap();
    assert_eq!(rows(&table), [1.0, -2.0, 63.5, -64.0, 6.0, 8.0, 1.0, -2.0]);
    assert_eq!((table.words.join(""), table.bytes), ("abcd".into(), 54));
    for last in [3, -1] {
        folder.write("model.safetensors", &safetensors(header, &data(last)));
        refused(folder.0.path(), None, "its mapping names vector");
    }
    refused(tempfile::tempdir().unwrap().path(), None, "without model.safetensors");
}

#[test]
fn a_pickle_is_refused_with_the_line_that_converts_it() {
    let folder = Folder::new();
    refused(&folder.write("t.pt", b"PK\x03\x04data.pkl"), None, "weights_only=True");
    refused(&folder.write("t.bin", b"\x80\x02}q"), None, "save_file");
}

/// Bytes changed at random: a table is read or refused with a word; nothing panics, hangs or takes all
/// memory.
#[test]
fn files_that_lie() {
    use proptest::prelude::*;
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/own");
    let header = r#"{"a":{"dtype":"F32","shape":[20,6],"data_offsets":[0,480]}}"#;
    let text: String = (0..20).map(|i| format!("w{i} {i} 2.5 -1e-3\n")).collect();
    let mut binary = b"20 6\n".to_vec();
    (0..ROWS).for_each(|row| {
        binary.extend(b"word ");
        binary.extend(&singles()[4 * DIM * row..][..4 * DIM]);
    });
    let mut gguf = b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    gguf.extend(
        b"\x11\0\0\0\0\0\0\0token_embd.weight\x02\0\0\0\x06\0\0\0\0\0\0\0\x14\0\0\0\0\0\0\0",
    );
    gguf.extend([0; 12]);
    gguf.resize(gguf.len().next_multiple_of(32), 0);
    gguf.extend(singles());
    let mut fasttext: Vec<u8> = [793_712_314i32, 12].iter().flat_map(|x| x.to_le_bytes()).collect();
    fasttext.extend([0; 56]);
    fasttext.extend([1i32, 1, 0].iter().flat_map(|x| x.to_le_bytes()));
    fasttext.extend([9i64, -1].iter().flat_map(|x| x.to_le_bytes()));
    fasttext.extend(b"word\0\x07\0\0\0\0\0\0\0\0\0");
    fasttext.extend([20i64, 6].iter().flat_map(|x| x.to_le_bytes()));
    fasttext.extend(singles());
    let seeds = [
        ("t.npy", npy("<f4", false, "20, 6", &singles())),
        ("t.safetensors", safetensors(header, &singles())),
        ("t.txt", text.clone().into_bytes()),
        ("u.txt", format!("20 3\n{text}").into_bytes()),
        ("t.bin", binary),
        ("t.gguf", gguf),
        ("f.bin", fasttext),
        ("t.parquet", std::fs::read(own.join("lists.parquet")).unwrap()),
    ];
    let folder = Folder::new();
    for (name, bytes) in &seeds {
        assert!(open(&folder.write(name, bytes), None).is_ok(), "{name}");
    }
    let changes = prop::collection::vec((0usize..100_000, any::<u8>(), 0usize..4), 1..6);
    let cases = (0..seeds.len(), changes);
    proptest!(ProptestConfig::with_cases(2000), |((seed, changes) in cases)| {
        let (name, mut bytes) = seeds[seed].clone();
        for (at, byte, kind) in changes {
            // Headers are where lies are told.
            let at = if at % 2 == 0 { at % bytes.len().clamp(1, 160) } else { at % bytes.len().max(1) };
            match kind {
                _ if bytes.is_empty() => {}
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                2 => drop(bytes.splice(at..at, *b"9999999")),
                _ => bytes[at] = byte,
            }
        }
        if let Ok(table) = open(&folder.write(name, &bytes), None) {
            let _ = table.check();
        }
    });
}
