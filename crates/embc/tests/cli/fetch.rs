//! `embc data fetch` against a server of our own: cut connections, resumes, wrong checksums.

use crate::sandbox::Sandbox;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Serves `body`; each of the first `cuts` answers breaks off after a third of what was asked.
struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
    ranges: Arc<Mutex<Vec<usize>>>,
}

fn serve(name: &str, body: Vec<u8>, cuts: usize) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/files/{name}", listener.local_addr().unwrap());
    let (requests, ranges) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let server = Server { url, requests: requests.clone(), ranges: ranges.clone() };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let number = requests.fetch_add(1, Ordering::SeqCst);
            let mut from = 0;
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let line = line.unwrap().to_ascii_lowercase();
                if let Some(range) = line.strip_prefix("range: bytes=") {
                    from = range.trim_end_matches('-').parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            ranges.lock().unwrap().push(from);
            let part = &body[from.min(body.len())..];
            let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                part.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            let sent = if number < cuts { part.len() / 3 } else { part.len() };
            let _ = stream.write_all(&part[..sent]);
        }
    });
    server
}

fn zip(rows: &str) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, text) in [("ml/README", "hello"), ("ml/ratings.csv", rows)] {
        zip.start_file(name, options).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn ratings() -> String {
    let row = |i: u32| format!("{},{},{},{}\n", i % 20, (i * 7) % 90, i % 5 + 1, i);
    "userId,movieId,rating,timestamp\n".to_string() + &(0..2000).map(row).collect::<String>()
}

fn registry(sandbox: &Sandbox, url: &str, more: &str) {
    sandbox.write(
        "datasets.toml",
        format!("[ml]\ntitle = \"t\"\nformat = \"movielens-csv\"\nsplit = {{ rule = \"last-per-user\", valid = 1, test = 1 }}\narchive = {{ url = \"{url}\" {more} }}\nfiles.ratings = {{ path = \"ml/ratings.csv\" }}\n"),
    );
}

#[test]
fn a_cut_download_is_resumed_verified_and_unpacked() {
    let body = zip(&ratings());
    let sha256: String = Sha256::digest(&body).iter().map(|b| format!("{b:02x}")).collect();
    let server = serve("ml.zip", body, 2);
    let sandbox = Sandbox::new();
    registry(&sandbox, &server.url, &format!(", sha256 = \"{sha256}\""));
    sandbox.run(&["data", "fetch", "ml"]).expect(0, "taking it up again");
    assert_eq!(server.requests.load(Ordering::SeqCst), 3);
    let ranges = server.ranges.lock().unwrap().clone();
    assert!(ranges[0] == 0 && 0 < ranges[1] && ranges[1] < ranges[2], "{ranges:?}");
    assert_eq!(std::fs::read_to_string(sandbox.path("data/ml/ratings.csv")).unwrap(), ratings());
    sandbox.run(&["data", "fetch", "ml"]).expect(0, "all files are here");
    let info = sandbox.run(&["data", "info", "ml"]).fine();
    assert!(info.stdout.contains("rows       2,000") && info.stdout.contains("20 valid, 20 test"));
}

#[test]
fn a_wrong_checksum_leaves_nothing() {
    let server = serve("ml.zip", zip(&ratings()), 0);
    let sandbox = Sandbox::new();
    registry(&sandbox, &server.url, &format!(", sha256 = \"{}\"", "0".repeat(64)));
    sandbox.run(&["data", "fetch", "ml"]).refuses("not 0000");
    assert_eq!(std::fs::read_dir(sandbox.path("data/downloads")).unwrap().count(), 0);
    assert!(!sandbox.path("data/ml").exists());
}

#[test]
fn an_unknown_checksum_is_printed_and_recorded() {
    let body = zip(&ratings());
    let sha256: String = Sha256::digest(&body).iter().map(|b| format!("{b:02x}")).collect();
    let server = serve("ml.zip", body, 0);
    let sandbox = Sandbox::new();
    registry(&sandbox, &server.url, "");
    sandbox.run(&["data", "fetch", "ml"]).expect(0, &sha256);
    let mut record = String::new();
    // Two data sets may have archives of one name: that of the address comes first.
    let files = std::fs::read_dir(sandbox.path("data/downloads")).unwrap().flatten();
    let mut paths = files.map(|file| file.path());
    let path = paths.find(|path| path.to_string_lossy().ends_with("-ml.zip.sha256")).unwrap();
    std::fs::File::open(path).unwrap().read_to_string(&mut record).unwrap();
    assert!(record.starts_with(&sha256) && record.ends_with("-ml.zip\n"), "{record}");
}

#[test]
fn what_cannot_be_fetched_says_what_to_do() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&["data", "fetch", "criteo-kaggle"])
        .refuses("download it from https://www.kaggle.com");
    let server = serve("ml.zip", b"not a zip".to_vec(), 0);
    registry(&sandbox, &server.url, "");
    sandbox.run(&["data", "fetch", "ml"]).refuses("cannot be unpacked");
    // ml-20m is not here: the experiment says where to get it.
    let config = crate::sandbox::root().join("configs/memcom/memcom_ml20m.toml");
    sandbox.write("configs/memcom/memcom_ml20m.toml", std::fs::read(config).unwrap());
    sandbox
        .run(&["train", "--config", "memcom_ml20m.toml"])
        .refuses("run `embc data fetch ml-20m`");
}
