//! Downloads of public archives: resumed where they were cut, verified, unpacked.

use crate::atomic;
use crate::error::{At, Error, Result};
use crate::ingest::{Progress, Watch, verify};
use crate::input::{Digested, digest};
use crate::lease::Lease;
use crate::registry::{Archive, Entry, RawFile};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Times that a cut connection is taken up again before giving up.
const RETRIES: u32 = 4;

/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// What `fetch` did.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// All files were there already.
    Present,
    /// The archive was downloaded and unpacked.
    Downloaded {
        /// Its digest.
        archive: Digested,
        /// False where the registry knows no checksum: it was recorded in this file.
        recorded: Option<PathBuf>,
    },
}

/// Makes sure that all raw files of `entry` are in the data dir.
pub fn fetch(entry: &Entry, data_dir: &Path, watch: Watch<'_>) -> Result<Fetched> {
    let here = entry.files.values().all(|file| entry.locate(file, data_dir).is_ok());
    if here {
        for file in entry.files.values() {
            for (_, path) in entry.parts(file, data_dir)? {
                verify(&path, file, &digest(&path, &mut |_| Ok(()))?)?;
            }
        }
        return Ok(Fetched::Present);
    }
    let Some(archive) = &entry.archive else { return Err(by_hand(entry, data_dir)) };
    let folder = data_dir.join("downloads");
    std::fs::create_dir_all(&folder).at(&folder)?;
    // Two data sets may have archives of one name.
    let named = archive.url.rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or("archive");
    let address = crate::hex(&Sha256::digest(archive.url.as_bytes()));
    let name = &format!("{}-{named}", &address[..8]);
    let path = folder.join(name);
    let lease = Lease::wait(&folder.join(format!(".lock-{name}")), &mut || {
        watch(Progress { phase: "waiting for another embc to fetch it", done: 0, total: 1 })
    })?;
    if !path.exists() {
        let part = folder.join(format!("{name}.part"));
        download(archive, &part, watch)?;
        check(archive, &part)?;
        if !lease.is_mine() {
            let what = "another embc has taken over fetching it; run the same command again";
            return Err(Error::file(&path, what));
        }
        std::fs::rename(&part, &path).at(&path)?;
        atomic::sync_folder(&folder)?;
    }
    let got = check(archive, &path)?;
    unpack(entry, &path, data_dir)?;
    let recorded = archive.sha256.is_none().then(|| folder.join(format!("{name}.sha256")));
    if let Some(record) = &recorded {
        let line = format!("{}  {name}\n", got.sha256);
        atomic::write(record, |file| file.write_all(line.as_bytes()).at(record))?;
    }
    Ok(Fetched::Downloaded { archive: got, recorded })
}

/// Which files to get where, for data without a public archive.
fn by_hand(entry: &Entry, data_dir: &Path) -> Error {
    let missing = entry.files.values().filter(|file| entry.locate(file, data_dir).is_err());
    let paths: Vec<String> =
        missing.map(|file| data_dir.join(&file.path).display().to_string()).collect();
    Error::Data(format!(
        "data set {} has no public archive: download it from {} and put it at {}",
        entry.name,
        if entry.homepage.is_empty() { "its owner" } else { &entry.homepage },
        paths.join(", ")
    ))
}

/// Refuses an archive of another size or digest, and removes it so that the next try starts anew.
fn check(archive: &Archive, path: &Path) -> Result<Digested> {
    let got = digest(path, &mut |_| Ok(()))?;
    let wrong = match (archive.bytes, &archive.sha256) {
        (Some(bytes), _) if bytes != got.bytes => Some(format!("{} bytes, not {bytes}", got.bytes)),
        (_, Some(sha256)) if !sha256.eq_ignore_ascii_case(&got.sha256) => {
            Some(format!("sha256 {}, not {sha256}", got.sha256))
        }
        _ => None,
    };
    match wrong {
        None => Ok(got),
        Some(wrong) => {
            std::fs::remove_file(path).at(path)?;
            let what = format!("{} sent {wrong}; it was removed, try again", archive.url);
            Err(Error::file(path, what))
        }
    }
}

fn download(archive: &Archive, part: &Path, watch: Watch<'_>) -> Result<()> {
    let mut failure = String::new();
    for attempt in 0..=RETRIES {
        match attempt_download(archive, part, watch) {
            Ok(()) => return Ok(()),
            Err(Attempt::Give(error)) => return Err(error),
            Err(Attempt::Retry(what)) => failure = what,
        }
        if attempt < RETRIES {
            tracing::warn!("{}: {failure}; taking it up again", archive.url);
            std::thread::sleep(Duration::from_millis(200 << attempt));
        }
    }
    let what = format!("{} failed: {failure}; run the command again to resume", archive.url);
    Err(Error::file(part, what))
}

enum Attempt {
    /// The connection failed; what came is kept.
    Retry(String),
    /// Trying again would not help.
    Give(Error),
}

fn attempt_download(
    archive: &Archive,
    part: &Path,
    watch: Watch<'_>,
) -> std::result::Result<(), Attempt> {
    let io = |error: std::io::Error| Attempt::Give(Error::io(part, &error));
    let mut file =
        OpenOptions::new().create(true).append(true).read(true).open(part).map_err(io)?;
    let mut done = file.seek(SeekFrom::End(0)).map_err(io)?;
    let mut request = ureq::get(&archive.url)
        .config()
        .timeout_connect(Some(SILENCE))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .build();
    if done > 0 {
        request = request.header("Range", format!("bytes={done}-"));
    }
    let mut response = match request.call() {
        Ok(response) => response,
        // Nothing lies beyond: the part is whole already.
        Err(ureq::Error::StatusCode(416)) => return Ok(()),
        Err(ureq::Error::StatusCode(code @ 400..500)) => {
            let what = format!("{} answers {code}; see whether it has moved", archive.url);
            return Err(Attempt::Give(Error::file(part, what)));
        }
        Err(error) => return Err(Attempt::Retry(error.to_string())),
    };
    if done > 0 && response.status() != 206 {
        file.set_len(0).map_err(io)?;
        done = 0;
    }
    let left = response.headers().get("content-length").and_then(|v| v.to_str().ok()?.parse().ok());
    let total = left.map_or(archive.bytes.unwrap_or(0), |left: u64| done + left);
    let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = match body.read(&mut buffer) {
            Ok(n) => n,
            Err(error) => return Err(Attempt::Retry(error.to_string())),
        };
        if n == 0 {
            break;
        }
        file.write_all(&buffer[..n]).map_err(io)?;
        done += n as u64;
        watch(Progress { phase: "downloading", done, total }).map_err(Attempt::Give)?;
    }
    file.sync_all().map_err(io)?;
    match total > done {
        true => Err(Attempt::Retry(format!("cut off after {done} of {total} bytes"))),
        false => Ok(()),
    }
}

/// Writes the files of `entry` out of an archive.
fn unpack(entry: &Entry, archive: &Path, data_dir: &Path) -> Result<()> {
    let name = archive.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let missing: Vec<&RawFile> =
        entry.files.values().filter(|file| entry.locate(file, data_dir).is_err()).collect();
    let broken = |error: &dyn std::fmt::Display| {
        Error::file(archive, format!("cannot be unpacked: {error}; remove it and fetch again"))
    };
    if name.ends_with(".zip") {
        let mut zip =
            zip::ZipArchive::new(File::open(archive).at(archive)?).map_err(|e| broken(&e))?;
        for file in missing {
            let member = zip
                .file_names()
                .filter_map(|name| Some(name.ok()?.into_owned()))
                .find(|member| matches(member, &file.path))
                .ok_or_else(|| absent(archive, file))?;
            let mut from = zip.by_name(&member).map_err(|e| broken(&e))?;
            place(&mut from, file, data_dir)?;
        }
    } else if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
        let mut left = missing;
        let unpacked = flate2::read::GzDecoder::new(File::open(archive).at(archive)?);
        let mut tar = tar::Archive::new(unpacked);
        for member in tar.entries().map_err(|e| broken(&e))? {
            let mut member = member.map_err(|e| broken(&e))?;
            let path = member.path().map_err(|e| broken(&e))?.to_string_lossy().into_owned();
            if let Some(i) = left.iter().position(|file| matches(&path, &file.path)) {
                place(&mut member, left.swap_remove(i), data_dir)?;
            }
        }
        if let Some(file) = left.first() {
            return Err(absent(archive, file));
        }
    } else {
        for file in missing {
            place(&mut File::open(archive).at(archive)?, file, data_dir)?;
        }
    }
    Ok(())
}

/// True if an archive's member is the wanted file: the same path, or the same name in any folder.
fn matches(member: &str, wanted: &Path) -> bool {
    Path::new(member) == wanted || Path::new(member).file_name() == wanted.file_name()
}

fn absent(archive: &Path, file: &RawFile) -> Error {
    Error::file(archive, format!("holds no {}", file.path.display()))
}

/// Writes one file into the data dir, verified, whole or not at all.
fn place(from: &mut dyn Read, file: &RawFile, data_dir: &Path) -> Result<()> {
    let path = data_dir.join(&file.path);
    atomic::write(&path, |temporary| {
        std::io::copy(from, temporary).at(&path)?;
        verify(&path, file, &digest(temporary.path(), &mut |_| Ok(()))?)
    })
}
