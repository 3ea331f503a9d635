//! Avro's numbers and lengths: the binary encoding at its lowest level.

use super::error::{Fault, Problem};
use crate::model::batch::Span;

/// The longest variable-length number: 64 bits in groups of seven.
const MAX_LONG_BYTES: usize = 10;

/// Appends an `int`, `long`, length or index: zigzag, then seven bits a byte, low ones first.
pub(super) fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a `bytes` or `string`: length, then content.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

/// Reads a sequence of values and never past its end.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning of `data`.
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// How many bytes have been read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub(super) fn remaining(&self) -> usize {
        self.data.len() - self.at
    }

    /// An error at this place.
    pub(super) fn fault<T>(&self, problem: Problem) -> Result<T, Fault> {
        Err(Fault { at: self.at, problem })
    }

    /// Skips `expected` if it comes next.
    pub(super) fn skip(&mut self, expected: &[u8]) -> bool {
        let found = self.data[self.at..].starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    /// A `long`, or a count or size.
    #[inline]
    pub(super) fn long(&mut self) -> Result<i64, Fault> {
        let mut bits = 0u64;
        for (i, byte) in self.data[self.at..].iter().take(MAX_LONG_BYTES).enumerate() {
            bits |= u64::from(byte & 0x7F) << (7 * i);
            if byte & 0x80 == 0 {
                // The tenth byte has room for one bit only.
                if i == MAX_LONG_BYTES - 1 && *byte > 1 {
                    return self.fault(Problem::NumberTooLong);
                }
                self.at += i + 1;
                return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
        }
        self.fault(if self.remaining() < MAX_LONG_BYTES { Problem::DataEnd } else { Problem::NumberTooLong })
    }

    /// An `int`.
    pub(super) fn int(&mut self) -> Result<i32, Fault> {
        let at = self.at;
        let value = self.long()?;
        i32::try_from(value).map_err(|_| Fault { at, problem: Problem::NotInt(value) })
    }

    /// Which of `choices` branches of a union, or symbols of an enum.
    pub(super) fn index(&mut self, choices: usize) -> Result<usize, Fault> {
        let at = self.at;
        let value = self.long()?;
        match usize::try_from(value) {
            Ok(index) if index < choices => Ok(index),
            _ => Err(Fault { at, problem: Problem::NoSuchChoice { value, choices } }),
        }
    }

    /// Where a `bytes` or `string` lies.
    #[inline]
    pub(super) fn span(&mut self) -> Result<Span, Fault> {
        let at = self.at;
        let len = self.long()?;
        let len = usize::try_from(len).map_err(|_| Fault { at, problem: Problem::Length(len) })?;
        if len > self.remaining() {
            return Err(Fault { at, problem: Problem::DataEnd });
        }
        let span = Span::new(self.at, len);
        self.at += len;
        Ok(span)
    }

    /// A `bytes` or `string`.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        Ok(self.span()?.of(self.data))
    }

    /// The bytes of a span read before.
    pub(super) fn of(&self, span: Span) -> &'a [u8] {
        span.of(self.data)
    }

    /// `N` bytes as they are.
    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        match self.data[self.at..].first_chunk() {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => self.fault(Problem::DataEnd),
        }
    }

    /// The number of items in the next part of an array or a map, 0 at its end. A negative count is followed by the
    /// part's size in bytes. No more items than bytes are left: an item of ours has at least one.
    pub(super) fn items(&mut self) -> Result<u64, Fault> {
        let at = self.at;
        let count = self.long()?;
        if count < 0 {
            self.long()?;
        }
        let items = count.unsigned_abs();
        match items <= self.remaining() as u64 {
            true => Ok(items),
            false => Err(Fault { at, problem: Problem::DataEnd }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, &[0])]
    #[case(-1, &[1])]
    #[case(1, &[2])]
    #[case(-64, &[0x7F])]
    #[case(64, &[0x80, 1])]
    #[case(i64::MAX, &[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1])]
    #[case(i64::MIN, &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1])]
    fn longs(#[case] value: i64, #[case] bytes: &[u8]) {
        let mut out = Vec::new();
        put_long(&mut out, value);
        assert_eq!(out, bytes);
        assert_eq!(Cursor::new(bytes).long(), Ok(value));
    }

    #[rstest]
    #[case::nothing(&[], Problem::DataEnd)]
    #[case::cut_off(&[0x80, 0x80], Problem::DataEnd)]
    #[case::no_end(&[0x80; 10], Problem::NumberTooLong)]
    #[case::more_than_64_bits(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2], Problem::NumberTooLong)]
    fn bad_longs(#[case] bytes: &[u8], #[case] problem: Problem) {
        assert_eq!(Cursor::new(bytes).long(), Err(Fault { at: 0, problem }));
    }

    #[rstest]
    #[case::negative(&[1], Problem::Length(-1))]
    #[case::longer_than_the_data(&[4, b'x'], Problem::DataEnd)]
    fn bad_spans(#[case] bytes: &[u8], #[case] problem: Problem) {
        assert_eq!(Cursor::new(bytes).bytes(), Err(Fault { at: 0, problem }));
    }

    proptest! {
        #[test]
        fn any_long_comes_back(value: i64) {
            let mut out = Vec::new();
            put_long(&mut out, value);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.long(), Ok(value));
            prop_assert_eq!(cursor.remaining(), 0);
        }
    }
}
