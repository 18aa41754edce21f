//! Walking over BSON bytes: document by document, and element by element at the top level.

use crate::error::{Result, corrupt};

/// No document a server gives is larger: 16 MiB of user data and the 16 KiB it allows itself on top.
pub const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024 + 16 * 1024;
/// An empty document: its length and the closing zero.
const DOCUMENT_BYTES_MIN: usize = 5;

/// One element of a document: type, name and value as they are in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// The BSON type byte.
    pub kind: u8,
    /// The name without its closing zero; any bytes, also invalid UTF-8.
    pub name: &'a [u8],
    /// The value without type and name.
    pub value: &'a [u8],
}

/// Cuts concatenated documents apart. Ends after the first error.
pub fn split_documents(mut bytes: &[u8]) -> impl Iterator<Item = Result<&[u8]>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let cut = document_length(bytes).and_then(|length| bytes.split_at_checked(length));
        let Some((document, rest)) = cut.filter(|(document, _)| document.last() == Some(&0)) else {
            bytes = &[];
            return Some(Err(corrupt("cut documents apart: a length is wrong")));
        };
        bytes = rest;
        Some(Ok(document))
    })
}

/// The length a document begins with, if it is a possible one.
pub(crate) fn document_length(bytes: &[u8]) -> Option<usize> {
    let length = usize::try_from(i32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    (DOCUMENT_BYTES_MIN..=DOCUMENT_BYTES_MAX).contains(&length).then_some(length)
}

/// The top-level elements of one document, in their order. Ends after the first error.
pub fn elements(document: &[u8]) -> impl Iterator<Item = Result<Element<'_>>> {
    let inner = document.get(4..document.len().saturating_sub(1)).unwrap_or_default();
    let mut rest = inner;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((element, after)) = next_element(rest) else {
            rest = &[];
            return Some(Err(corrupt("walk over a document: an element is malformed")));
        };
        rest = after;
        Some(Ok(element))
    })
}

fn next_element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let name_length = rest.iter().position(|byte| *byte == 0)?;
    let (name, rest) = rest.split_at_checked(name_length)?;
    let rest = rest.get(1..)?;
    let (value, rest) = rest.split_at_checked(value_length(*kind, rest)?)?;
    Some((Element { kind: *kind, name, value }, rest))
}

/// How many bytes the value at the start of `bytes` takes; `None` for an unknown type or an impossible length.
fn value_length(kind: u8, bytes: &[u8]) -> Option<usize> {
    let prefixed_from = |least: usize, extra: usize| {
        let length = usize::try_from(i32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
        (length >= least).then(|| length.checked_add(extra))?
    };
    let prefixed = |extra: usize| prefixed_from(0, extra);
    let c_string = |from: usize| Some(from + bytes.get(from..)?.iter().position(|byte| *byte == 0)? + 1);
    Some(match kind {
        0x01 | 0x09 | 0x11 | 0x12 => 8,     // double, date, timestamp, 64-bit integer
        0x02 | 0x0d | 0x0e => prefixed(4)?, // string, code, symbol
        0x03 | 0x04 | 0x0f => prefixed_from(DOCUMENT_BYTES_MIN, 0)?, // document, array, code with scope
        0x05 => prefixed(5)?,               // binary: length, subtype, bytes
        0x06 | 0x0a | 0x7f | 0xff => 0,     // undefined, null, max key, min key
        0x07 => 12,                         // object id
        0x08 => 1,                          // boolean
        0x0b => c_string(c_string(0)?)?,    // regular expression: pattern, options
        0x0c => prefixed(16)?,              // database pointer: string, object id
        0x10 => 4,                          // 32-bit integer
        0x13 => 16,                         // 128-bit decimal
        _ => return None,
    })
}

/// Whether a top-level field other than `_id` holds `Timestamp(0, 0)`, which a server replaces by its own time when
/// the document is inserted.
pub fn has_top_level_zero_timestamp(document: &[u8]) -> Result<bool> {
    for element in elements(document) {
        let element = element?;
        if element.kind == 0x11 && element.name != b"_id" && element.value == [0; 8] {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, Timestamp, rawdoc};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stream_is_cut_where_the_documents_end() {
        let documents = [rawdoc! { "_id": 1 }, rawdoc! {}, rawdoc! { "a": "b", "c": { "d": [1, 2] } }];
        let stream: Vec<u8> = documents.iter().flat_map(|document| document.as_bytes().to_vec()).collect();
        let cut: Vec<&[u8]> = split_documents(&stream).collect::<Result<_>>().unwrap();
        assert_eq!(cut, documents.iter().map(|document| document.as_bytes()).collect::<Vec<_>>());
    }

    #[test]
    fn a_stream_that_lies_about_lengths_is_refused() {
        for bad in [
            &[4, 0, 0, 0][..],
            &[5, 0, 0],
            &[5, 0, 0, 0, 1],
            &[6, 0, 0, 0, 0],
            &[0xff; 8],
            &[0, 0, 0, 0x7f, 0],
        ] {
            assert!(split_documents(bad).any(|document| document.is_err()), "{bad:?}");
        }
    }

    #[test]
    fn only_the_timestamps_a_server_replaces_are_found() {
        let zero = Timestamp { time: 0, increment: 0 };
        let check = |document: RawDocumentBuf, expected: bool| {
            assert_eq!(has_top_level_zero_timestamp(document.as_bytes()).unwrap(), expected, "{document:?}");
        };
        check(rawdoc! { "_id": 1, "t": zero }, true);
        check(rawdoc! { "_id": zero }, false);
        check(rawdoc! { "_id": 1, "in": { "t": zero }, "list": [zero] }, false);
        check(rawdoc! { "_id": 1, "t": Timestamp { time: 1, increment: 0 } }, false);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = split_documents(&bytes).count();
            let _ = elements(&bytes).count();
            let _ = has_top_level_zero_timestamp(&bytes);
        }
    }
}
