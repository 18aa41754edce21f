//! `_id`s as keys: ordered as a server without a collation sorts them, equal where they are one `_id` to it.
//!
//! A value is checked once, all the way down, when a key is made of it; so comparing keys never fails.

use std::cmp::Ordering;
use std::fmt;

use super::id_value::{IdRange, IdValue};
use super::value_order::{LEVELS_MAX, check_document, compare_documents};
use super::walk::{Element, elements};
use crate::error::{Result, corrupt};

/// An `_id` as a key of maps and sets. Keys that are equal are one `_id` to the server, even where their bytes differ:
/// `1` and `1.0`.
#[derive(Clone)]
pub struct IdKey(IdValue);

impl IdKey {
    /// The key of an `_id`; `Corrupt` where the value is malformed anywhere or nests too deep.
    pub fn new(id: IdValue) -> Result<Self> {
        let document = id.as_document().as_bytes();
        check_document(document)?;
        if elements(document).count() != 1 {
            return Err(corrupt("order an _id: it is more than one value"));
        }
        Ok(Self(id))
    }

    /// The `_id` itself.
    #[must_use]
    pub const fn id(&self) -> &IdValue {
        &self.0
    }
}

impl Ord for IdKey {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_documents(self.0.as_document().as_bytes(), other.0.as_document().as_bytes())
    }
}

impl PartialOrd for IdKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for IdKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for IdKey {}

/// Shows nothing of the value.
impl fmt::Debug for IdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdKey({} bytes)", self.0.as_document().as_bytes().len())
    }
}

/// An [`IdRange`] that keys are looked up in. In a collection with a collation this is not the server's range if
/// [`needs_collation`] is true of a bound or of the `_id`.
#[derive(Clone, Debug)]
pub struct KeyRange {
    lower: Option<IdKey>,
    upper: Option<IdKey>,
}

impl KeyRange {
    /// The range with keys for its bounds; `Corrupt` where one of them is.
    pub fn new(range: &IdRange) -> Result<Self> {
        let key = |bound: Option<&IdValue>| bound.cloned().map(IdKey::new).transpose();
        Ok(Self { lower: key(range.lower.as_ref())?, upper: key(range.upper.as_ref())? })
    }

    /// The smallest `_id` of the range; `None` if it is open below.
    #[must_use]
    pub const fn lower(&self) -> Option<&IdKey> {
        self.lower.as_ref()
    }

    /// The smallest `_id` after the range; `None` if it is open above.
    #[must_use]
    pub const fn upper(&self) -> Option<&IdKey> {
        self.upper.as_ref()
    }

    /// Whether the `_id` is in the range.
    #[must_use]
    pub fn contains(&self, id: &IdKey) -> bool {
        self.lower().is_none_or(|lower| lower <= id) && self.upper().is_none_or(|upper| id < upper)
    }

    /// Whether there may be an `_id` in both ranges. A range whose bounds are equal or the wrong way round holds none.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let holds = |lower: Option<&IdKey>, upper: Option<&IdKey>| {
            lower.zip(upper).is_none_or(|(lower, upper)| lower < upper)
        };
        [self, other].iter().all(|one| [self, other].iter().all(|two| holds(one.lower(), two.upper())))
    }
}

/// Whether a collation could give the `_id` another place, or make it one with others: whether it is, or holds, a
/// string or a symbol. The scope of code does not count, because servers compare it without the collation.
#[must_use]
pub fn needs_collation(id: &IdValue) -> bool {
    holds_text(id.as_document().as_bytes(), 0)
}

/// What is malformed or nests too deep has no place at all, so a collation is the least it would need.
fn holds_text(document: &[u8], level: usize) -> bool {
    level > LEVELS_MAX
        || elements(document).any(|element| match element {
            Ok(Element { kind: 0x02 | 0x0e, .. }) | Err(_) => true,
            Ok(Element { kind: 0x03 | 0x04, value, .. }) => holds_text(value, level + 1),
            Ok(_) => false,
        })
}

#[cfg(test)]
mod tests {
    use bson::{RawArrayBuf, RawBson, RawDocumentBuf, rawdoc};
    use proptest::prelude::*;

    use super::*;

    fn id(document: &RawDocumentBuf) -> IdValue {
        IdValue::of_document(document.as_bytes()).unwrap().unwrap()
    }

    fn key(document: &RawDocumentBuf) -> IdKey {
        IdKey::new(id(document)).unwrap()
    }

    fn range(lower: Option<i32>, upper: Option<i32>) -> KeyRange {
        let bound = |value: Option<i32>| value.map(|value| id(&rawdoc! { "_id": value }));
        KeyRange::new(&IdRange { lower: bound(lower), upper: bound(upper) }).unwrap()
    }

    #[test]
    fn keys_are_equal_where_the_server_sees_one_id() {
        let check = |one: RawDocumentBuf, two: RawDocumentBuf, expected: Ordering| {
            assert_eq!(key(&one).cmp(&key(&two)), expected, "{one:?} and {two:?}");
            assert_eq!(key(&one) == key(&two), expected.is_eq(), "{one:?} and {two:?}");
            assert_eq!(key(&one).partial_cmp(&key(&two)), Some(expected), "{one:?} and {two:?}");
        };
        check(rawdoc! { "_id": 1 }, rawdoc! { "_id": 1.0, "other": 7 }, Ordering::Equal);
        check(rawdoc! { "_id": 1_i64 }, rawdoc! { "other": 7, "_id": 1 }, Ordering::Equal);
        check(rawdoc! { "_id": { "a": 1 } }, rawdoc! { "_id": { "a": 1.0 } }, Ordering::Equal);
        check(rawdoc! { "_id": { "a": 1, "b": 1 } }, rawdoc! { "_id": { "b": 1, "a": 1 } }, Ordering::Less);
        check(rawdoc! { "_id": "a" }, rawdoc! { "_id": "A" }, Ordering::Greater);
        check(rawdoc! { "_id": "1" }, rawdoc! { "_id": 2 }, Ordering::Greater);
    }

    #[test]
    fn what_cannot_be_compared_is_no_key_and_no_bound() {
        let broken = rawdoc! { "_id": RawDocumentBuf::from_bytes(vec![6, 0, 0, 0, 0x20, 0]).unwrap() };
        assert!(IdKey::new(id(&broken)).is_err());
        assert!(IdKey::new(IdValue::from_parts(0x0a, b"\x0amore\0").unwrap()).is_err());
        assert!(IdKey::new(IdValue::from_parts(0x10, &[1]).unwrap()).is_err());
        let range = IdRange { lower: None, upper: Some(id(&broken)) };
        assert!(KeyRange::new(&range).is_err());
    }

    #[test]
    fn a_key_shows_nothing_of_its_value() {
        let shown = format!("{:?}", key(&rawdoc! { "_id": "secret" }));
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_range_takes_its_lower_bound_and_not_its_upper_one() {
        let check = |range: &KeyRange, expected: &[i32]| {
            let found: Vec<i32> = (0..6).filter(|n| range.contains(&key(&rawdoc! { "_id": *n }))).collect();
            assert_eq!(found, expected, "{range:?}");
        };
        check(&range(None, None), &[0, 1, 2, 3, 4, 5]);
        check(&range(None, Some(2)), &[0, 1]);
        check(&range(Some(2), Some(4)), &[2, 3]);
        check(&range(Some(4), None), &[4, 5]);
        check(&range(Some(4), Some(4)), &[]);
        assert!(range(Some(2), Some(4)).contains(&key(&rawdoc! { "_id": 2.0 })));
        assert!(!range(Some(2), None).contains(&key(&rawdoc! { "_id": RawBson::MinKey })));
        assert!(range(None, None).contains(&key(&rawdoc! { "_id": RawBson::MaxKey })));
    }

    #[test]
    fn ranges_overlap_where_they_share_ids() {
        let check = |one: KeyRange, two: KeyRange, expected: bool| {
            assert_eq!(one.overlaps(&two), expected, "{one:?} and {two:?}");
            assert_eq!(two.overlaps(&one), expected, "{two:?} and {one:?}");
        };
        check(range(None, None), range(None, None), true);
        check(range(None, Some(2)), range(Some(2), None), false);
        check(range(None, Some(3)), range(Some(2), None), true);
        check(range(Some(1), Some(9)), range(Some(3), Some(4)), true);
        check(range(Some(1), Some(3)), range(Some(3), Some(4)), false);
        check(range(Some(1), Some(9)), range(Some(3), Some(3)), false);
        check(range(None, None), range(Some(4), Some(3)), false);
    }

    #[test]
    fn text_needs_the_collation_wherever_it_is_but_in_scopes() {
        let check = |document: RawDocumentBuf, expected: bool| {
            assert_eq!(needs_collation(&id(&document)), expected, "{document:?}");
        };
        let mut list = RawArrayBuf::new();
        list.push(1_i32);
        check(rawdoc! { "_id": list.clone() }, false);
        list.push("x");
        check(rawdoc! { "_id": list }, true);
        check(rawdoc! { "_id": 1, "other": "x" }, false);
        check(rawdoc! { "_id": "" }, true);
        check(rawdoc! { "_id": { "a": { "b": "x" } } }, true);
        check(rawdoc! { "_id": { "a": { "b": 1 } } }, false);
        check(rawdoc! { "_id": RawDocumentBuf::from_bytes(vec![6, 0, 0, 0, 0x20, 0]).unwrap() }, true);
    }

    proptest! {
        #[test]
        fn any_bytes_make_a_key_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some(id)) = IdValue::of_document(&bytes) {
                let _ = needs_collation(&id);
                if let Ok(key) = IdKey::new(id) {
                    prop_assert!(key == key.clone());
                }
            }
        }
    }
}
