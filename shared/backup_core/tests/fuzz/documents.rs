//! Documents: cut out of a stream, walked, and their ids. The driver's own reader of BSON is the oracle.

use backup_core::Result;
use backup_core::bson::{
    DOCUMENT_BYTES_MAX, Element, IdRange, IdValue, elements, has_top_level_zero_timestamp, split_documents,
};
use backup_testkit::hostile::{self, Draw, SECRET, assert_discreet};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bolero::check;
use bson::{RawDocument, Timestamp};
use serde_json::json;

use crate::texts::comes_back;

/// Every type there is, the deprecated ones too.
const KINDS: [u8; 21] = [
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11,
    0x12, 0x13, 0x7f, 0xff,
];
/// Names as a server allows them: also empty, and with bytes that are no text.
const NAMES: [&[u8]; 6] = [b"_id\0", b"zebra\0", b"\0", b"$t\0", b"a.b\0", b"\xff\xfe\0"];

/// A valid document of drawn types, names and values.
pub(crate) fn document(draw: &mut Draw<'_>) -> Vec<u8> {
    let mut inner = Vec::new();
    for _ in 0..draw.byte() % 8 {
        let kind = KINDS[usize::from(draw.byte()) % KINDS.len()];
        inner.push(kind);
        inner.extend_from_slice(NAMES[usize::from(draw.byte()) % NAMES.len()]);
        inner.extend(value(kind, draw));
    }
    framed(&inner)
}

fn value(kind: u8, draw: &mut Draw<'_>) -> Vec<u8> {
    match kind {
        0x01 | 0x09 | 0x11 | 0x12 => draw.bytes(8),
        0x02 | 0x0d | 0x0e => string(draw),
        0x03 | 0x04 => framed(b"\x02zebra\0\x06\0\0\0zebra\0"),
        0x05 => {
            let length = draw.byte() % 8;
            [vec![length, 0, 0, 0, draw.byte()], draw.bytes(usize::from(length))].concat()
        }
        0x07 => draw.bytes(12),
        0x08 => vec![draw.byte() % 2],
        0x0b => b"zebra\0i\0".to_vec(),
        0x0c => [string(draw), draw.bytes(12)].concat(),
        0x0f => {
            let inner = [string(draw), framed(b"")].concat();
            [length(inner.len() + 4), inner].concat()
        }
        0x10 => draw.bytes(4),
        0x13 => draw.bytes(16),
        _ => Vec::new(), // undefined, null, least and greatest key
    }
}

fn string(draw: &mut Draw<'_>) -> Vec<u8> {
    let text = SECRET.repeat(usize::from(draw.byte() % 3));
    [length(text.len() + 1), text.into_bytes(), vec![0]].concat()
}

fn framed(inner: &[u8]) -> Vec<u8> {
    [length(inner.len() + 5), inner.to_vec(), vec![0]].concat()
}

fn length(length: usize) -> Vec<u8> {
    i32::try_from(length).unwrap().to_le_bytes().to_vec()
}

#[test]
fn stream() {
    check!().for_each(|input: &[u8]| {
        let (mut shape, mut damage) = Draw::halves(input);
        let valid: Vec<u8> = (0..shape.byte() % 5).flat_map(|_| document(&mut shape)).collect();
        let bytes = hostile::bytes(&valid, &mut damage);
        let cut: Result<Vec<&[u8]>> = split_documents(&bytes).collect();
        match cut {
            Ok(documents) => {
                assert_eq!(documents.concat(), bytes);
                for document in documents {
                    assert!(document.len() <= DOCUMENT_BYTES_MAX);
                    RawDocument::from_bytes(document).unwrap();
                }
            }
            Err(why) => {
                assert!(bytes != valid, "a valid stream is refused: {why}");
                assert_discreet(&why);
            }
        }
    });
}

#[test]
fn walker() {
    check!().for_each(|input: &[u8]| {
        let (mut shape, mut damage) = Draw::halves(input);
        let valid = document(&mut shape);
        let bytes = hostile::bytes(&valid, &mut damage);
        let walked: Result<Vec<Element<'_>>> = elements(&bytes).collect();
        match &walked {
            Ok(all) => {
                let again: Vec<u8> = all.iter().flat_map(written).collect();
                assert_eq!(again, bytes.get(4..bytes.len().saturating_sub(1)).unwrap_or_default());
            }
            Err(why) => {
                assert!(bytes != valid, "a valid document is refused: {why}");
                assert_discreet(why);
            }
        }
        if let Some(seen) = as_the_driver_sees(&bytes) {
            let walked: Vec<_> = walked.unwrap().iter().map(|it| (it.kind, it.name.to_vec())).collect();
            assert_eq!(walked, seen.iter().map(|(kind, name, _)| (*kind, name.clone())).collect::<Vec<_>>());
            let zero = seen.iter().any(|(_, name, is_zero_timestamp)| *is_zero_timestamp && name != b"_id");
            assert_eq!(has_top_level_zero_timestamp(&bytes).unwrap(), zero);
        }
    });
}

fn written(element: &Element<'_>) -> Vec<u8> {
    [&[element.kind][..], element.name, &[0][..], element.value].concat()
}

/// Type, name and whether it is `Timestamp(0, 0)`, for each element; `None` where the driver refuses the document,
/// which it does more often than we do.
fn as_the_driver_sees(bytes: &[u8]) -> Option<Vec<(u8, Vec<u8>, bool)>> {
    let zero = Timestamp { time: 0, increment: 0 };
    let document = RawDocument::from_bytes(bytes).ok()?;
    let seen = document.iter().map(|element| {
        let (name, value) = element.ok()?;
        let kind = value.element_type() as u8;
        Some((kind, name.as_str().as_bytes().to_vec(), value.as_timestamp() == Some(zero)))
    });
    seen.collect()
}

#[test]
fn id() {
    check!().for_each(|input: &[u8]| {
        let (mut shape, mut damage) = Draw::halves(input);
        let valid = document(&mut shape);
        let bytes = hostile::bytes(&valid, &mut damage);
        match IdValue::of_document(&bytes) {
            Ok(Some(id)) => {
                assert!(!format!("{id:?}").contains(SECRET));
                assert!(!id.may_bound_a_range() || id.as_document().as_bytes().len() <= IdValue::BYTES_MAX);
                let json = serde_json::to_vec(&id).unwrap();
                assert_eq!(comes_back::<IdValue>(&json), Some(id), "an _id is not read as it was written");
            }
            Ok(None) => assert!(elements(&bytes).all(|element| element.unwrap().name != b"_id")),
            Err(why) => {
                assert!(bytes != valid, "a valid document is refused: {why}");
                assert_discreet(&why);
            }
        }
    });
}

#[test]
fn bound() {
    check!().for_each(|input: &[u8]| {
        let (mut shape, mut damage) = Draw::halves(input);
        let kind = KINDS[usize::from(shape.byte()) % KINDS.len()];
        let valid = framed(&[&[kind][..], b"_id\0", &value(kind, &mut shape)].concat());
        let bytes = hostile::bytes(&valid, &mut damage);
        let range = json!({ "lower": STANDARD.encode(&bytes), "upper": null });
        match comes_back::<IdRange>(range.to_string().as_bytes()) {
            // A bound is the document {_id: value} and nothing else, so that it has one spelling.
            Some(range) => assert_eq!(range.lower.unwrap().as_document().as_bytes(), bytes),
            None => assert!(bytes != valid, "a valid bound is refused"),
        }
    });
}
