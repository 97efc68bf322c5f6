//! A wish to stop, which everything that may take long looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by whoever asks for the stop and whoever heeds it.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    set: Arc<AtomicBool>,
    outer: Option<Arc<Cancel>>,
}

impl Cancel {
    /// One of a part: it is also set when this one is.
    pub fn part(&self) -> Self {
        Self { set: Arc::default(), outer: Some(Arc::new(self.clone())) }
    }

    /// Asks for the stop, for good.
    pub fn set(&self) {
        self.set.store(true, Ordering::Relaxed);
    }

    /// True once it was asked for.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed) || self.outer.as_ref().is_some_and(|outer| outer.is_set())
    }
}

#[cfg(test)]
mod tests {
    use super::Cancel;

    #[test]
    fn a_part_stops_with_the_whole_and_not_the_other_way_round() {
        let whole = Cancel::default();
        let (part, other) = (whole.part(), whole.part());
        part.set();
        assert!(part.is_set() && !whole.is_set() && !other.is_set());
        whole.set();
        assert!(other.is_set());
    }
}
