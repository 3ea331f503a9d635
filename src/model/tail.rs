//! Finding the last object of a partition without a full listing.
//!
//! A search asks for pages of names ("up to [`PAGE`] names from this offset on") and learns from each answer. It never
//! needs more than about `2 + log2(log end)` pages, 64 at the very most, however many objects there are, and one
//! page where there are fewer than [`PAGE`].

/// Names asked for at a time. Large enough that most partitions need one page, small enough to be cheap for the store.
pub const PAGE: usize = 100;

/// A search for the largest object offset of a partition.
#[derive(Debug, Clone)]
pub struct TailSearch {
    /// The largest offset seen.
    known: Option<i64>,
    /// Proved: there is no object at or above this offset (`i64::MAX`: nothing proved).
    bound: i64,
    /// What the next page starts at; `None` when the search is over.
    next: Option<i64>,
    /// The log's end: most searches end near it.
    log_end: i64,
    pages: u32,
}

impl TailSearch {
    /// A search in a list that begins at `origin`, of a partition whose log ends at `log_end`. Both only steer the
    /// search: it finds the tail wherever it is at or above `origin`.
    pub fn new(origin: i64, log_end: i64) -> Self {
        Self { known: None, bound: i64::MAX, next: Some(origin.max(0)), log_end, pages: 0 }
    }

    /// The offset from which (inclusive) the next page of names is wanted; `None`: [`Self::tail`] is the answer.
    pub fn wants(&self) -> Option<i64> {
        self.next
    }

    /// The largest offset found; meaningful once [`Self::wants`] is `None`.
    pub fn tail(&self) -> Option<i64> {
        self.known
    }

    /// Pages asked for so far.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Takes the answer to [`Self::wants`]: the largest offset on the page, and whether more names follow it.
    pub fn answer(&mut self, largest: Option<i64>, more: bool) {
        let Some(asked) = self.next.take() else { return };
        self.pages += 1;
        match largest {
            None => self.bound = asked,
            Some(offset) => {
                self.known = Some(offset.max(self.known.unwrap_or(offset)));
                if !more {
                    return;
                }
            }
        }
        let Some(known) = self.known else { return };
        if self.bound <= known + 1 {
            return;
        }
        self.next = Some(if self.bound == i64::MAX && known < self.log_end {
            // Usually nothing lies behind the log's end; one page proves it.
            self.log_end
        } else {
            known + (self.bound - known) / 2
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(offsets: &[i64], origin: i64, log_end: i64) -> TailSearch {
        let mut search = TailSearch::new(origin, log_end);
        while let Some(from) = search.wants() {
            let rest: Vec<i64> = offsets.iter().copied().filter(|o| *o >= from).take(PAGE + 1).collect();
            let page = &rest[..rest.len().min(PAGE)];
            search.answer(page.last().copied(), rest.len() > PAGE);
            assert!(search.pages() <= 66, "{search:?}");
        }
        search
    }

    #[test]
    fn a_hundred_thousand_objects_take_a_dozen_pages() {
        let offsets: Vec<i64> = (0..100_000).map(|i| i * 1_000).collect();
        let search = run(&offsets, 0, 100_000_000);
        assert_eq!(search.tail(), Some(99_999_000));
        assert!(search.pages() <= 14, "{}", search.pages());
    }

    #[test]
    fn few_objects_take_one_page() {
        assert_eq!(run(&[], 0, 1_000).pages(), 1);
        assert_eq!(run(&[0, 10, 20], 0, 1_000).pages(), 1);
    }

    proptest! {
        #[test]
        fn finds_the_tail_wherever_it_is(
            mut offsets in prop::collection::btree_set(0..i64::MAX / 2, 0..400).prop_map(|s| s.into_iter().collect::<Vec<_>>()),
            dense in any::<bool>(),
            log_end in 0..i64::MAX / 2,
        ) {
            if dense {
                for (i, o) in offsets.iter_mut().enumerate() { *o = i as i64; }
            }
            prop_assert_eq!(run(&offsets, 0, log_end).tail(), offsets.last().copied());
        }
    }
}
