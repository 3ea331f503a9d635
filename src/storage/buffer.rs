//! Room for large answers, used again.
//!
//! Pieces of objects come and go by the thousand, are made on one thread and given back on another, and a general
//! allocator keeps what is given back apart for each of them: the memory of a program that only ever holds a few pieces
//! grows to several times that. So what a piece lay in is kept for the next one.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Below this many bytes an allocator does well enough.
const LEAST: usize = 256 * 1024;

/// The most bytes of one buffer that is kept: no piece is larger.
const MOST: usize = 4 * 1024 * 1024;

/// Bytes kept for use again, together.
const KEPT: usize = 32 * 1024 * 1024;

/// What is kept.
static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A buffer that is being filled.
#[derive(Debug, Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// With room for so many bytes; it grows when there are more.
    pub fn with_room(bytes: usize) -> Self {
        if !(LEAST..=MOST).contains(&bytes) {
            return Self(Vec::with_capacity(bytes));
        }
        // Few sizes, so that what one piece has left fits the next one.
        let room = bytes.next_power_of_two();
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = free.iter().position(|kept| kept.capacity() == room);
        Self(fits.map_or_else(|| Vec::with_capacity(room), |at| free.swap_remove(at)))
    }

    /// So many bytes, to be written over.
    pub fn zeroed(bytes: usize) -> Self {
        let mut buffer = Self::with_room(bytes);
        buffer.0.resize(bytes, 0);
        buffer
    }

    /// Appends bytes.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// What is in it.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Filled; its room is used again when nobody holds a part of it any longer.
    pub fn freeze(mut self) -> Bytes {
        match is_kept(self.0.capacity()) {
            true => Bytes::from_owner(self),
            false => Bytes::from(std::mem::take(&mut self.0)),
        }
    }
}

/// Whether a buffer of this size is used again.
fn is_kept(room: usize) -> bool {
    (LEAST..=MOST).contains(&room) && room.is_power_of_two()
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut room = std::mem::take(&mut self.0);
        if !is_kept(room.capacity()) {
            return;
        }
        room.clear();
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: usize = free.iter().map(Vec::capacity).sum();
        if kept + room.capacity() <= KEPT {
            free.push(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_is_what_comes_out() {
        for bytes in [0, 1, LEAST - 1, LEAST, LEAST + 1, MOST, MOST + 1] {
            for fill in [3, 7] {
                let mut buffer = Buffer::with_room(bytes);
                buffer.extend_from_slice(&vec![fill; bytes]);
                let frozen = buffer.freeze();
                assert_eq!((frozen.len(), frozen.iter().all(|byte| *byte == fill)), (bytes, true));
                let zeroed = Buffer::zeroed(bytes).freeze();
                assert!(
                    zeroed.len() == bytes && zeroed.iter().all(|byte| *byte == 0),
                    "nothing of another one is left"
                );
            }
        }
    }

    #[test]
    fn a_part_keeps_the_whole() {
        let mut buffer = Buffer::with_room(LEAST);
        buffer.extend_from_slice(&[1; LEAST]);
        let part = buffer.freeze().slice(10..20);
        // Others take and give back meanwhile.
        (0..4).for_each(|_| drop(Buffer::zeroed(LEAST).freeze()));
        assert_eq!(part, [1; 10][..]);
    }

    #[test]
    fn no_more_than_a_limit_is_kept() {
        let all: Vec<Bytes> = (0..3 * KEPT / MOST).map(|_| Buffer::zeroed(MOST).freeze()).collect();
        drop(all);
        let kept: usize = FREE.lock().unwrap().iter().map(Vec::capacity).sum();
        assert!((MOST..=KEPT).contains(&kept), "{kept}");
    }
}
