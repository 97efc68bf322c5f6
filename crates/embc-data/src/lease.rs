//! The right to do something alone, for processes on one machine or on many that share a folder.
//!
//! A lease is a file that its holder has made (exclusive create) and writes again, unchanged, every
//! third of its term. Who finds it in the way looks at its age, by the clock of the file system: a
//! file beside it tells the time, so that no machine's own clock counts. One that is older than its
//! term, or whose process is seen to be dead, is renamed away, looked at once more, and taken over; a
//! holder that was only slow sees that it has lost, and must not publish. Only atomic rename and
//! exclusive create are asked of the file system: no `flock`, which network folders refuse or ignore.

use crate::error::{At, Error, Result};
use embc_core::cancel::Cancel;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// How long a lease lasts that is not renewed: three of its renewals fail before it is lost.
pub const TERM: Duration = Duration::from_secs(90);
/// How long a reading of the file system's clock is relied on.
const CLOCK: Duration = Duration::from_secs(10);

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// Tells this lease from all others.
    token: String,
    /// Its machine's name.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// The scheduler's name of its job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Seconds since 1970, by the file system's clock.
    pub since: u64,
    /// Seconds that it lasts unless it is renewed.
    term: f64,
    /// Whose processes have this number: a machine since its last start, and a namespace.
    space: String,
    /// When the process started, in the system's ticks: a number may be another process's later.
    started: Option<u64>,
}

impl Holder {
    fn me(term: Duration, since: SystemTime) -> Self {
        let (pid, random) = (std::process::id(), RandomState::new().hash_one(SystemTime::now()));
        let since = since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            token: format!("{random:016x}"),
            host: host(),
            pid,
            job: job(),
            since,
            term: term.as_secs_f64(),
            space: space(),
            started: started(pid),
        }
    }

    /// True where its process would be seen here, and is not.
    fn is_dead(&self) -> bool {
        !self.space.is_empty() && self.space == space() && started(self.pid) != self.started
    }
}

/// This machine's name.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("COMPUTERNAME").ok());
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    if name.trim().is_empty() { "unnamed".into() } else { name.trim().into() }
}

/// The scheduler's name of this job, if it is one.
fn job() -> Option<String> {
    let of = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let array = || Some(format!("{}_{}", of("SLURM_ARRAY_JOB_ID")?, of("SLURM_ARRAY_TASK_ID")?));
    array()
        .or_else(|| ["SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID"].into_iter().find_map(of))
}

/// Whose processes have numbers of their own; empty where the system does not tell.
fn space() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let processes = std::fs::read_link("/proc/self/ns/pid");
    let (Ok(boot), Ok(processes)) = (boot, processes) else { return String::new() };
    format!("{} {} {}", host(), boot.trim(), processes.display())
}

/// When a process started; none where there is none, or only what is left of one.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name, in brackets, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let alive = !matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| alive)
}

/// A lease that this process holds, until it is dropped.
pub struct Lease {
    path: PathBuf,
    text: String,
    /// Ends what it is for: set where the lease is lost, and with the whole.
    pub cancel: Cancel,
    lost: Cancel,
    /// Who held it before, and was not heard of any more.
    pub lost_by: Option<Box<Holder>>,
    /// Its end stops the renewing.
    _renewing: Sender<()>,
}

/// What is known of a lease of someone.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Who; none where it is just being written, or torn.
    pub holder: Option<Holder>,
    /// Since it was taken.
    pub held: Duration,
    /// Whether anyone may take it over.
    pub stale: bool,
    text: String,
    modified: SystemTime,
}

impl Lease {
    /// Takes the lease at a path; none where another holds it. `whole` ends all work.
    pub fn take(path: &Path, term: Duration, whole: &Cancel) -> Result<Option<Self>> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut lost_by = None;
        // Others may make and remove it, and its folder, all the time.
        for _ in 0..100 {
            std::fs::create_dir_all(folder).at(folder)?;
            match OpenOptions::new().write(true).create_new(true).open(path) {
                Ok(file) => {
                    let mut lease = Self::begin(path, file, term, whole)?;
                    lease.lost_by = lost_by.map(Box::new);
                    return Ok(Some(lease));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => match Self::look(path)? {
                    Some(seen) if !seen.stale => return Ok(None),
                    Some(seen) => lost_by = evict(path, seen)?.or(lost_by),
                    None => {}
                },
                Err(error) => return Err(Error::io(path, &error)),
            }
        }
        Ok(None)
    }

    /// Waits for the lease; `wait` is told, and may end it.
    pub fn wait(path: &Path, wait: &mut dyn FnMut() -> Result<()>) -> Result<Self> {
        loop {
            if let Some(lease) = Self::take(path, TERM, &Cancel::default())? {
                return Ok(lease);
            }
            wait()?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn begin(path: &Path, mut file: File, term: Duration, whole: &Cancel) -> Result<Self> {
        let since = file.metadata().and_then(|file| file.modified()).at(path)?;
        let holder = Holder::me(term, since);
        let text = serde_json::to_string(&holder).expect("plain data") + "\n";
        if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()) {
            let _ = std::fs::remove_file(path);
            return Err(Error::io(path, &error));
        }
        let (stop, stopped) = channel();
        let (lost, cancel) = (Cancel::default(), whole.part());
        let path = path.to_path_buf();
        let lease = Self { path, text, cancel, lost, lost_by: None, _renewing: stop };
        let (path, text) = (lease.path.clone(), lease.text.clone());
        let ends = [lease.cancel.clone(), lease.lost.clone()];
        let renew = move || {
            if !renew(&path, &text, term, &stopped) {
                ends.iter().for_each(Cancel::set);
            }
        };
        let thread = std::thread::Builder::new().name("lease".into()).spawn(renew);
        thread.map_err(|error| Error::io(&lease.path, &error))?;
        Ok(lease)
    }

    /// What is known of the lease at a path; none where nobody has it.
    pub fn look(path: &Path) -> Result<Option<Seen>> {
        // Opening asks a network's server for the file as it is now.
        let read = File::open(path).and_then(|mut file| {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok((text, file.metadata()?.modified()?))
        });
        let (text, modified) = match read {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path, &error)),
        };
        let holder: Option<Holder> = serde_json::from_str(&text).ok();
        let term = holder.as_ref().map_or(TERM.as_secs_f64(), |holder| holder.term);
        let age = age(path, modified);
        let dead = holder.as_ref().is_some_and(Holder::is_dead);
        let stale = dead || age.as_secs_f64() > term;
        let since = holder
            .as_ref()
            .map_or(modified, |holder| SystemTime::UNIX_EPOCH + Duration::from_secs(holder.since));
        let held = age + modified.duration_since(since).unwrap_or_default();
        Ok(Some(Seen { holder, held, stale, text, modified }))
    }

    /// Whether it still is this process's: to be asked before anything is published.
    pub fn is_mine(&self) -> bool {
        !self.lost.is_set() && std::fs::read_to_string(&self.path).is_ok_and(|t| t == self.text)
    }

    /// Whether it was seen to be another's.
    pub fn is_lost(&self) -> bool {
        self.lost.is_set()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_mine() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Renews a lease until it is dropped; false where it is lost.
fn renew(path: &Path, text: &str, term: Duration, stopped: &Receiver<()>) -> bool {
    let (mut heard, mut pause) = (Instant::now(), term / 3);
    loop {
        if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return true;
        }
        let begun = Instant::now();
        match write_again(path, text) {
            Ok(true) => (heard, pause) = (begun, term / 3),
            Ok(false) => return false,
            // A network's server may be away for a moment: until others may take it over.
            Err(_) => pause = term / 20,
        }
        if heard.elapsed() >= term {
            return false;
        }
    }
}

/// Writes a lease again, so that the file system sets its time; false where it is another's.
fn write_again(path: &Path, text: &str) -> std::io::Result<bool> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let mut file = match file {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let mut now = String::new();
    file.read_to_string(&mut now)?;
    if now != text {
        return Ok(false);
    }
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(true)
}

/// Renames a stale lease away, and back where it is not the one that was seen; who has lost it.
fn evict(path: &Path, seen: Seen) -> Result<Option<Holder>> {
    let random = RandomState::new().hash_one(SystemTime::now());
    let aside = path.with_file_name(format!(".lost-{random:016x}"));
    let gone = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
    match std::fs::rename(path, &aside) {
        Err(error) if gone(&error) => return Ok(None),
        renamed => renamed.at(path)?,
    }
    let text = std::fs::read_to_string(&aside).unwrap_or_default();
    let modified = aside.metadata().and_then(|file| file.modified());
    let is_it = text == seen.text && modified.is_ok_and(|modified| modified == seen.modified);
    // Renewed, or a newer one: its holder gets it back, unless a third is there by now.
    let back = match is_it {
        true => Ok(()),
        false => std::fs::hard_link(&aside, path).or_else(|error| match error.kind() {
            ErrorKind::AlreadyExists => Ok(()),
            _ => std::fs::rename(&aside, path),
        }),
    };
    let _ = std::fs::remove_file(&aside);
    back.or_else(|error| if gone(&error) { Ok(()) } else { Err(error) }).at(path)?;
    Ok(seen.holder.filter(|_| is_it))
}

/// How long ago a file was written, by its file system's clock; nothing where that cannot be told.
fn age(path: &Path, modified: SystemTime) -> Duration {
    /// What a file system's clock said, and when.
    static CLOCKS: LazyLock<Mutex<BTreeMap<u64, (Instant, SystemTime)>>> =
        LazyLock::new(Mutex::default);
    let folder = path.parent().unwrap_or(Path::new("."));
    let device = device(folder);
    let mut clocks = CLOCKS.lock().expect("no panic while it is held");
    let known = clocks.get(&device).filter(|(at, _)| at.elapsed() < CLOCK);
    let (at, then) = match known {
        Some(known) => *known,
        None => {
            let Ok(now) = probe(folder) else { return Duration::ZERO };
            clocks.insert(device, now);
            now
        }
    };
    (then + at.elapsed()).duration_since(modified).unwrap_or_default()
}

/// The file system's time, of a file that is made for that.
fn probe(folder: &Path) -> std::io::Result<(Instant, SystemTime)> {
    let file = tempfile::Builder::new().prefix(".clock-").tempfile_in(folder)?;
    Ok((Instant::now(), file.as_file().metadata()?.modified()?))
}

#[cfg(unix)]
fn device(folder: &Path) -> u64 {
    std::fs::metadata(folder).map_or(0, |folder| std::os::unix::fs::MetadataExt::dev(&folder))
}

#[cfg(not(unix))]
fn device(_: &Path) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(path: &Path) -> Option<Lease> {
        Lease::take(path, TERM, &Cancel::default()).unwrap()
    }

    /// Leaves a lease as a process on another machine would that was heard of so long ago.
    fn others(path: &Path, term: f64, ago: Duration) {
        let me = Holder::me(TERM, SystemTime::now());
        let other = Holder { host: "elsewhere".into(), space: "elsewhere".into(), term, ..me };
        std::fs::write(path, serde_json::to_string(&other).unwrap()).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - ago).unwrap();
    }

    #[test]
    fn one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/lease");
        let first = take(&path).unwrap();
        assert!(take(&path).is_none() && first.is_mine());
        drop(first);
        assert!(!path.exists());
        let (taken, begin) = (Mutex::new(Vec::new()), std::sync::Barrier::new(8));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    begin.wait();
                    taken.lock().unwrap().extend(take(&path));
                });
            }
        });
        assert_eq!(taken.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_lease_of_another_machine_lasts_its_own_term() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        others(&path, 90.0, Duration::from_secs(60));
        assert!(take(&path).is_none(), "heard of a minute ago");
        others(&path, 30.0, Duration::from_secs(60));
        let lease = take(&path).expect("heard of too long ago");
        assert_eq!(lease.lost_by.as_ref().unwrap().host, "elsewhere");
        assert!(lease.is_mine());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_dead_process_of_this_machine_leaves_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let me = Holder::me(TERM, SystemTime::now());
        if me.space.is_empty() {
            return eprintln!("skipped: this system does not tell processes apart");
        }
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let holder = Holder { pid, started: started(pid), ..me };
        std::fs::write(&path, serde_json::to_string(&holder).unwrap()).unwrap();
        assert!(take(&path).is_none());
        child.kill().unwrap();
        // Dead as soon as it has ended, though nobody has asked for its exit code.
        while started(pid).is_some() {
            std::thread::yield_now();
        }
        assert!(take(&path).is_some());
        child.wait().unwrap();
    }

    #[test]
    fn a_torn_lease_is_anyones_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        std::fs::write(&path, "{\"token\":").unwrap();
        assert!(take(&path).is_none(), "it may just be written");
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - 2 * TERM).unwrap();
        assert!(take(&path).is_some());
    }

    #[test]
    fn what_is_taken_over_is_lost_and_not_removed_by_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let term = Duration::from_millis(30);
        let slow = Lease::take(&path, term, &Cancel::default()).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        others(&path, 90.0, Duration::ZERO);
        assert!(!slow.is_mine());
        while !slow.cancel.is_set() {
            std::thread::yield_now();
        }
        assert!(slow.is_lost());
        drop(slow);
        assert!(path.exists());
    }

    /// Renewed while another was about to take it over: it comes back.
    #[test]
    fn a_lease_that_was_renewed_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        others(&path, 1.0, Duration::from_secs(60));
        let seen = Lease::look(&path).unwrap().unwrap();
        assert!(seen.stale);
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now()).unwrap();
        let text = seen.text.clone();
        assert_eq!(evict(&path, seen).unwrap(), None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert!(!Lease::look(&path).unwrap().unwrap().stale);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
