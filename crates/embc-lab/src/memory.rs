//! What a trial needs of the machine's memory, and who gets it where several run at once.

use std::fmt;
use std::sync::{Condvar, Mutex};

/// Bytes that a trial will hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Need {
    /// Parameters, pointers and codes.
    pub parameters: u64,
    /// Optimizer state and dense gradients.
    pub optimizer: u64,
    /// The best epoch's parameters beside the current ones.
    pub best: u64,
    /// Which rows a batch touched, by id, and the census of collisions at the end.
    pub index: u64,
    /// Rows and activations of a batch.
    pub batch: u64,
    /// Order and scores of the data's rows.
    pub rows: u64,
    /// The cache on disk: read through memory that other programs can have back, and not counted.
    pub cache: u64,
}

impl Need {
    /// What must be free.
    pub fn total(&self) -> u64 {
        self.parameters + self.optimizer + self.best + self.index + self.batch + self.rows
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = crate::units::bytes;
        write!(f, "needs about {}: {} of parameters", bytes(self.total()), bytes(self.parameters))?;
        let parts = [
            (self.optimizer, "of optimizer state and gradients"),
            (self.best, "for the best epoch's"),
            (self.index, "of row indices"),
            (self.batch, "for batches"),
            (self.rows, "for the order of rows and their scores"),
        ];
        for (part, what) in parts.iter().filter(|(part, _)| *part > 0) {
            write!(f, ", {} {what}", bytes(*part))?;
        }
        write!(f, "; it reads {} of cache", bytes(self.cache))
    }
}

/// The memory that was free at first, and what trials took of it.
pub struct Memory {
    free: u64,
    taken: Mutex<u64>,
    returned: Condvar,
}

impl Memory {
    /// All that is free now. Where the system does not tell, nothing is refused.
    pub fn free_now() -> Self {
        let free = crate::machine::free_memory();
        Self { free, taken: Mutex::new(0), returned: Condvar::new() }
    }

    /// What was free at first.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Waits until so much is left, or until nobody else has any; the error is what was free.
    pub fn take(&self, need: u64, overcommit: bool) -> Result<Taken<'_>, u64> {
        if need > self.free && !overcommit {
            return Err(self.free);
        }
        let taken = self.taken.lock().expect("no panic while it is held");
        let wait = |taken: &mut u64| *taken > 0 && taken.saturating_add(need) > self.free;
        let mut taken = self.returned.wait_while(taken, wait).expect("no panic while it is held");
        *taken += need;
        Ok(Taken { memory: self, bytes: need })
    }
}

/// Memory of a running trial.
pub struct Taken<'a> {
    memory: &'a Memory,
    bytes: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Ok(mut taken) = self.memory.taken.lock() {
            *taken -= self.bytes;
        }
        self.memory.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_wait_for_memory_and_too_much_is_refused() {
        let memory = Memory { free: 10, taken: Mutex::new(0), returned: Condvar::new() };
        assert_eq!(memory.take(11, false).err(), Some(10));
        assert!(memory.take(11, true).is_ok(), "alone, and told to");
        let first = memory.take(6, false).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| memory.take(6, false).map(drop));
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!second.is_finished(), "6 + 6 are more than 10");
            drop(first);
            assert!(second.join().unwrap().is_ok());
        });
        assert_eq!(*memory.taken.lock().unwrap(), 0);
    }
}
