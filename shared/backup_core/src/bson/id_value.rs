//! Values of `_id` as range bounds. They are document content: they live sealed, and never in an event or a log.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bson::{RawDocument, RawDocumentBuf};
use serde::{Deserialize, Serialize};

use super::walk::elements;
use crate::error::{Result, corrupt};

/// One `_id`, kept as the document `{_id: value}` in the bytes the server gave.
#[derive(Clone, PartialEq)]
pub struct IdValue(RawDocumentBuf);

impl IdValue {
    /// A bound longer than this is not used: plans and indexes hold many of them.
    pub const BYTES_MAX: usize = 1024;

    /// The `_id` of `document`, if it has one, of whatever length.
    pub fn of_document(document: &[u8]) -> Result<Option<Self>> {
        for element in elements(document) {
            let element = element?;
            if element.name == b"_id" {
                return Self::from_parts(element.kind, element.value).map(Some);
            }
        }
        Ok(None)
    }

    /// The `_id` of this type and value; a malformed one is told by whoever looks into it.
    pub(crate) fn from_parts(kind: u8, value: &[u8]) -> Result<Self> {
        let length = value.len() + 10; // length, type, "_id\0", value, closing zero
        let mut bytes = Vec::with_capacity(length);
        let length = i32::try_from(length).map_err(|_| corrupt("read an _id: too long"))?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(b"_id\0");
        bytes.extend_from_slice(value);
        bytes.push(0);
        RawDocumentBuf::from_bytes(bytes).map(Self).map_err(|why| corrupt("read an _id").because(why))
    }

    /// The document `{_id: value}`.
    #[must_use]
    pub fn as_document(&self) -> &RawDocument {
        &self.0
    }

    /// Whether the value may bound a range: small enough to be kept, and of a type whose place in the server's order
    /// every comparison agrees on (undefined, arrays and regular expressions are special to queries).
    #[must_use]
    pub fn may_bound_a_range(&self) -> bool {
        let kind = self.0.as_bytes().get(4).copied();
        self.0.as_bytes().len() <= Self::BYTES_MAX && !matches!(kind, Some(0x04 | 0x06 | 0x0b) | None)
    }
}

/// Shows nothing of the value.
impl fmt::Debug for IdValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdValue({} bytes)", self.0.as_bytes().len())
    }
}

impl Serialize for IdValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0.as_bytes()))
    }
}

impl<'de> Deserialize<'de> for IdValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
        let id = Self::of_document(&bytes).map_err(serde::de::Error::custom)?;
        id.filter(|id| id.0.as_bytes() == bytes)
            .ok_or_else(|| serde::de::Error::custom("a range bound is not one document {_id: value}"))
    }
}

/// A half-open range of `_id`: `lower` is in it, `upper` is not. A missing bound is open, so that the first and the
/// last range of a collection take every value of every type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdRange {
    /// The smallest `_id` of the range, in the server's order.
    pub lower: Option<IdValue>,
    /// The smallest `_id` after the range.
    pub upper: Option<IdValue>,
}

impl IdRange {
    /// Every `_id`.
    pub const ALL: Self = Self { lower: None, upper: None };

    /// Whether the range takes every `_id`.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.lower.is_none() && self.upper.is_none()
    }
}

/// Checks that `ranges`, in this order, cover every `_id` exactly once: open at both ends, and each begins where the
/// one before it ended.
pub fn check_coverage<'a>(ranges: impl IntoIterator<Item = &'a IdRange>) -> Result<()> {
    let mut expected: Option<Option<&IdValue>> = Some(None);
    for range in ranges {
        if expected != Some(range.lower.as_ref()) {
            return Err(corrupt("cover a collection by ranges: there is a hole or an overlap"));
        }
        expected = range.upper.as_ref().map(Some);
    }
    match expected {
        None => Ok(()),
        Some(_) => Err(corrupt("cover a collection by ranges: the last range is not open")),
    }
}

#[cfg(test)]
mod tests {
    use bson::{Regex, cstr, oid::ObjectId, rawdoc};

    use super::*;

    fn id(document: &RawDocumentBuf) -> IdValue {
        IdValue::of_document(document.as_bytes()).unwrap().unwrap()
    }

    fn range(lower: Option<i32>, upper: Option<i32>) -> IdRange {
        let bound = |value: Option<i32>| value.map(|value| id(&rawdoc! { "_id": value }));
        IdRange { lower: bound(lower), upper: bound(upper) }
    }

    #[test]
    fn an_id_is_found_wherever_it_stands_and_survives_json() {
        for document in [
            rawdoc! { "_id": 7, "a": 1 },
            rawdoc! { "a": 1, "_id": { "x": [1, "y"] } },
            rawdoc! { "_id": ObjectId::new() },
        ] {
            let value = id(&document);
            assert_eq!(value.as_document().get("_id").unwrap(), document.get("_id").unwrap());
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<IdValue>(&json).unwrap(), value);
        }
        assert_eq!(IdValue::of_document(rawdoc! { "a": 1 }.as_bytes()).unwrap(), None);
    }

    #[test]
    fn awkward_values_do_not_bound_ranges() {
        let regex = Regex { pattern: cstr!("a").into(), options: cstr!("").into() };
        assert!(id(&rawdoc! { "_id": "x" }).may_bound_a_range());
        assert!(!id(&rawdoc! { "_id": "x".repeat(2000) }).may_bound_a_range());
        assert!(!id(&rawdoc! { "_id": regex }).may_bound_a_range());
    }

    #[test]
    fn holes_overlaps_and_closed_ends_are_found() {
        let check =
            |ranges: &[IdRange], good: bool| assert_eq!(check_coverage(ranges).is_ok(), good, "{ranges:?}");
        check(&[IdRange::ALL], true);
        check(&[range(None, Some(3)), range(Some(3), Some(9)), range(Some(9), None)], true);
        check(&[], false);
        check(&[range(None, Some(3)), range(Some(4), None)], false);
        check(&[range(None, Some(3))], false);
        check(&[range(Some(3), None)], false);
        check(&[IdRange::ALL, IdRange::ALL], false);
        check(&[range(None, Some(3)), range(None, None)], false);
    }
}
