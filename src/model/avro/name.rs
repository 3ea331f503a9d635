//! Header names that are not UTF-8, inside an Avro `string` that must be.
//!
//! Kafka does not check header names. A name that is UTF-8, and that is nearly every one, stands in the file as it is.
//! Elsewhere each byte `b` that is not part of valid UTF-8 becomes the character U+10FF00 + `b`, from the last 256 code
//! points of the private plane 16. So that reading is exact, those characters themselves, where a name really contains
//! them, are written byte by byte in the same way.
//!
//! ```text
//! in the name             in the file                                    as UTF-8
//! "trace-id"              "trace-id"                                     unchanged
//! "a", byte 0xFF          "a", U+10FFFF                                  61  F4 8F BF BF
//! U+10FF41 (F4 8F BD 81)  U+10FFF4 U+10FF8F U+10FFBD U+10FF81            16 bytes
//! ```
//!
//! [`escape`] is injective and `unescape(escape(name)) == name` for every sequence of bytes. In UTF-8 the 256
//! characters are `F4 8F BC..BF 80..BF`: the byte alone is found in the lowest two bits of the third and the lowest six
//! of the fourth.

use std::borrow::Cow;

/// The first byte of the characters that escape, and of no character below U+100000.
const LEAD: u8 = 0xF4;

/// The name as it stands in the file: UTF-8, borrowed unless something had to be escaped.
pub fn escape(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.contains(&LEAD) && std::str::from_utf8(name).is_ok() {
        return Cow::Borrowed(name);
    }
    let mut text = Vec::with_capacity(name.len() * 4);
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            let mut utf8 = [0; 4];
            let utf8 = c.encode_utf8(&mut utf8).as_bytes();
            match c {
                '\u{10FF00}'..='\u{10FFFF}' => utf8.iter().for_each(|byte| text.extend(escaped(*byte))),
                _ => text.extend_from_slice(utf8),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.extend(escaped(*byte)));
    }
    Cow::Owned(text)
}

/// The name as it was in Kafka, borrowed unless something was escaped.
pub fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = text.iter().position(|byte| *byte == LEAD) else { return Cow::Borrowed(text) };
    let mut name = Vec::with_capacity(text.len());
    name.extend_from_slice(&text[..first]);
    let mut rest = &text[first..];
    loop {
        rest = match *rest {
            [LEAD, 0x8F, high @ 0xBC..=0xBF, low @ 0x80..=0xBF, ..] => {
                name.push((high & 0x03) << 6 | low & 0x3F);
                &rest[4..]
            }
            [byte, ..] => {
                name.push(byte);
                &rest[1..]
            }
            [] => return Cow::Owned(name),
        };
    }
}

/// U+10FF00 + `byte`, in UTF-8.
fn escaped(byte: u8) -> [u8; 4] {
    [LEAD, 0x8F, 0xBC | byte >> 6, 0x80 | byte & 0x3F]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::ordinary(b"trace-id", "trace-id")]
    #[case::empty(b"", "")]
    #[case::other_scripts("\u{e9}\u{4e2d}\u{1F600}".as_bytes(), "\u{e9}\u{4e2d}\u{1F600}")]
    #[case::not_utf8(b"a\xFF", "a\u{10FFFF}")]
    #[case::zero_byte_is_utf8(b"\0", "\0")]
    #[case::cut_off_character(b"\xE4\xB8", "\u{10FFE4}\u{10FFB8}")]
    #[case::surrogate(b"\xED\xA0\x80", "\u{10FFED}\u{10FFA0}\u{10FF80}")]
    #[case::an_escape_in_the_name("\u{10FF41}".as_bytes(), "\u{10FFF4}\u{10FF8F}\u{10FFBD}\u{10FF81}")]
    #[case::just_below_the_escapes("\u{10FEFF}".as_bytes(), "\u{10FEFF}")]
    fn table(#[case] name: &[u8], #[case] text: &str) {
        assert_eq!(std::str::from_utf8(&escape(name)), Ok(text));
        assert_eq!(&*unescape(text.as_bytes()), name);
    }

    #[test]
    fn every_byte_has_its_character() {
        for byte in 0..=u8::MAX {
            let c = char::from_u32(0x10FF00 + u32::from(byte)).expect("in range");
            assert_eq!(escaped(byte), c.to_string().as_bytes());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(name in prop_oneof![
            any::<Vec<u8>>(),
            // the bytes the escapes are made of, in any order
            prop::collection::vec(prop_oneof![Just(0xF4), Just(0x8F), 0xBC..=0xBFu8, 0x80..=0xBFu8, Just(b'a')], 0..24),
        ]) {
            let text = escape(&name);
            prop_assert!(std::str::from_utf8(&text).is_ok());
            prop_assert_eq!(&*unescape(&text), &name[..]);
        }

        #[test]
        fn strings_pass_unchanged(name in "[^\u{10FF00}-\u{10FFFF}]*") {
            prop_assert_eq!(&*escape(name.as_bytes()), name.as_bytes());
            prop_assert_eq!(&*unescape(name.as_bytes()), name.as_bytes());
        }

        #[test]
        fn any_string_comes_back(name in any::<String>()) {
            let text = escape(name.as_bytes());
            prop_assert_eq!(&*unescape(&text), name.as_bytes());
        }
    }
}
