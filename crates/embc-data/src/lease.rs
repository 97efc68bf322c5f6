//! The right to do something alone, for processes on one machine or on many that share a folder.
//!
//! A lease is a file that its holder has made (exclusive create) and writes again, unchanged, every
//! third of its term. Who finds it in the way watches it: one that has not changed for a term, by the
//! watcher's own stopwatch, or whose process is seen to be dead, is renamed away, looked at once more,
//! and taken over. A holder that was only slow sees that it has lost, and must not publish. No clock of
//! any machine counts, and only atomic rename and exclusive create are asked of the file system: no
//! `flock`, which network folders refuse or ignore.

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
/// How long one lasts that is torn: writing it takes a moment.
const TORN: Duration = Duration::from_secs(10);

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
    /// Seconds since 1970, by the clock that sets the file's time.
    since: u64,
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

    /// True where its process would be seen here.
    fn is_near(&self) -> bool {
        // Where the system hides others' processes, it does so with the first, too.
        !self.space.is_empty() && self.space == space() && started(1).is_some()
    }

    fn is_dead(&self) -> bool {
        self.is_near() && started(self.pid) != self.started
    }

    fn is_alive(&self) -> bool {
        self.is_near() && started(self.pid) == self.started
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
            match std::fs::create_dir_all(folder) {
                Err(error) if is_passing(&error) => continue,
                made => made.at(folder)?,
            }
            match OpenOptions::new().write(true).create_new(true).open(path) {
                Ok(file) => {
                    let mut lease = Self::begin(path, file, term, whole)?;
                    lease.lost_by = lost_by.map(Box::new);
                    return Ok(Some(lease));
                }
                Err(error) if gone(&error) => {}
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
        let now = match read {
            Ok(now) => now,
            Err(error) if gone(&error) => return Ok(None),
            Err(error) => return Err(Error::io(path, &error)),
        };
        let silent = unchanged(path, &now);
        let (text, modified) = now;
        let holder: Option<Holder> = serde_json::from_str(&text).ok();
        let term = holder.as_ref().map_or(TORN.as_secs_f64(), |holder| holder.term);
        let since = holder
            .as_ref()
            .map_or(modified, |holder| SystemTime::UNIX_EPOCH + Duration::from_secs(holder.since));
        // Both times are of one clock.
        let held = silent + modified.duration_since(since).unwrap_or_default();
        let dead = holder.as_ref().is_some_and(Holder::is_dead);
        let stale = dead || silent.as_secs_f64() > term;
        Ok(Some(Seen { holder, held, stale, text, modified }))
    }

    /// Watches a lease until it is seen that its holder is alive (false), or gone (true): for who asks
    /// once, and would else take a machine that has died for busy each time.
    pub fn is_deserted(path: &Path, whole: &Cancel) -> Result<bool> {
        let Some(first) = Self::look(path)? else { return Ok(true) };
        while !whole.is_set() {
            match Self::look(path)? {
                None => return Ok(true),
                Some(seen) if seen.stale => return Ok(true),
                Some(seen) if seen.holder.as_ref().is_some_and(Holder::is_alive) => break,
                Some(seen) if (&seen.text, seen.modified) != (&first.text, first.modified) => break,
                Some(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        Ok(false)
    }

    /// Whether it still is this process's: to be asked before anything is published.
    pub fn is_mine(&self) -> bool {
        // A network's server may be away for a moment.
        for _ in 0..20 {
            if self.lost.is_set() {
                return false;
            }
            match std::fs::read_to_string(&self.path) {
                Ok(text) => return text == self.text,
                Err(error) if gone(&error) => return false,
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        false
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

fn gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

/// True for what comes of others that make and remove the same folders.
fn is_passing(error: &std::io::Error) -> bool {
    gone(error) || error.kind() == ErrorKind::AlreadyExists
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
            // One that took long may have come too late: again at once.
            Ok(true) => (heard, pause) = (begun, (term / 3).saturating_sub(begun.elapsed())),
            Ok(false) => return false,
            // A network's server may be away for a moment: until others may take it over.
            Err(_) if heard.elapsed() < term => pause = term / 20,
            Err(_) => return false,
        }
    }
}

/// Writes a lease again, so that the file system sets its time; false where it is another's.
fn write_again(path: &Path, text: &str) -> std::io::Result<bool> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let mut file = match file {
        Err(error) if gone(&error) => return Ok(false),
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

/// For how long this process has seen a lease as it is now.
fn unchanged(path: &Path, now: &(String, SystemTime)) -> Duration {
    type Seen = BTreeMap<PathBuf, ((String, SystemTime), Instant)>;
    static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(Mutex::default);
    let mut seen = SEEN.lock().expect("no panic while it is held");
    match seen.get(path).filter(|(then, _)| then == now) {
        Some((_, at)) => at.elapsed(),
        None => {
            seen.insert(path.into(), (now.clone(), Instant::now()));
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(path: &Path) -> Option<Lease> {
        Lease::take(path, TERM, &Cancel::default()).unwrap()
    }

    /// Leaves a lease as a process on another machine would, whose clock is a year off.
    fn others(path: &Path, term: f64) {
        let me = Holder::me(TERM, SystemTime::now());
        let other = Holder { host: "elsewhere".into(), space: "elsewhere".into(), term, ..me };
        std::fs::write(path, serde_json::to_string(&other).unwrap()).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(365 * 24 * 3600)).unwrap();
    }

    /// What is taken over in the end, however long that takes.
    fn take_in_the_end(path: &Path) -> Lease {
        std::iter::repeat_with(|| take(path)).flatten().next().unwrap()
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
        others(&path, 0.05);
        let begun = Instant::now();
        assert!(take(&path).is_none(), "it may be alive");
        let lease = take_in_the_end(&path);
        assert!(begun.elapsed() > Duration::from_millis(50));
        assert_eq!(lease.lost_by.as_ref().unwrap().host, "elsewhere");
        assert!(lease.is_mine());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn who_asks_once_waits_for_a_sign_of_life() {
        let folder = tempfile::tempdir().unwrap();
        let (path, go_on) = (folder.path().join("lease"), Cancel::default());
        others(&path, 0.2);
        assert!(Lease::is_deserted(&path, &go_on).unwrap() && take(&path).is_some());
        // Renewed while it is watched.
        others(&path, 90.0);
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| Lease::is_deserted(&path, &go_on).unwrap());
            while !watching.is_finished() {
                File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_modified(SystemTime::now())
                    .unwrap();
            }
            assert!(!watching.join().unwrap());
        });
        std::fs::remove_file(&path).unwrap();
        assert!(Lease::is_deserted(&path, &go_on).unwrap());
    }

    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "only Linux tells processes apart")]
    fn a_dead_process_of_this_machine_leaves_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let me = Holder::me(TERM, SystemTime::now());
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
    fn what_is_taken_over_is_lost_and_not_removed_by_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let term = Duration::from_millis(30);
        let slow = Lease::take(&path, term, &Cancel::default()).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        others(&path, 90.0);
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
        others(&path, 0.0);
        Lease::look(&path).unwrap();
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
