//! The order of values: how the index on `_id` of a server sorts them without a collation.
//!
//! Values are compared by the class of their types and then inside the class; numbers of all types are one class, and
//! so are strings and symbols. Fields of documents are compared by class, name and value, the items of arrays by class
//! and value; where one ends first, it comes first. The server's other comparisons differ from its index in details
//! that drivers do not write: they look at the names in arrays, too, and at names of database pointers behind a zero.
//!
//! [`check_document`] comes first: what it let pass is compared without a failure, and not too deep for the stack.

use std::cmp::Ordering;

use super::number_order::compare_numbers;
use super::walk::{Element, document_length, elements};
use crate::error::{Result, corrupt};

/// A server takes no document with more than 200 levels; the rest is room for one that is told otherwise.
pub(super) const LEVELS_MAX: usize = 250;
/// The bytes of the object id at the end of a database pointer.
const OBJECT_ID_BYTES: usize = 12;

/// Checks that the document is well-formed all the way down and nests at most [`LEVELS_MAX`] levels.
pub(super) fn check_document(document: &[u8]) -> Result<()> {
    check_level(document, 0)
}

/// Compares two documents that were checked.
pub(super) fn compare_documents(left: &[u8], right: &[u8]) -> Ordering {
    compare_fields(left, right, Names::Matter)
}

/// The types whose values are compared with each other, in the order of the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    MinKey,
    Undefined,
    Null,
    Number,
    Text,
    Document,
    Array,
    Binary,
    ObjectId,
    Boolean,
    Date,
    Timestamp,
    Regex,
    Pointer,
    Code,
    CodeWithScope,
    MaxKey,
}

impl Class {
    const fn of(kind: u8) -> Option<Self> {
        Some(match kind {
            0xff => Self::MinKey,
            0x06 => Self::Undefined,
            0x0a => Self::Null,
            0x01 | 0x10 | 0x12 | 0x13 => Self::Number,
            0x02 | 0x0e => Self::Text,
            0x03 => Self::Document,
            0x04 => Self::Array,
            0x05 => Self::Binary,
            0x07 => Self::ObjectId,
            0x08 => Self::Boolean,
            0x09 => Self::Date,
            0x11 => Self::Timestamp,
            0x0b => Self::Regex,
            0x0c => Self::Pointer,
            0x0d => Self::Code,
            0x0f => Self::CodeWithScope,
            0x7f => Self::MaxKey,
            _ => return None,
        })
    }
}

fn check_level(document: &[u8], level: usize) -> Result<()> {
    if level > LEVELS_MAX {
        return Err(corrupt("order an _id: it nests too deep"));
    }
    if document_length(document) != Some(document.len()) || document.last() != Some(&0) {
        return Err(corrupt("order an _id: a document in it is malformed"));
    }
    elements(document).try_for_each(|element| check_value(&element?, level))
}

/// The walk has checked the lengths already.
fn check_value(element: &Element<'_>, level: usize) -> Result<()> {
    let good = match element.kind {
        0x02 | 0x0d | 0x0e => is_string(element.value),
        0x03 | 0x04 => return check_level(element.value, level + 1),
        0x0c => split_pointer(element.value).is_some(),
        0x0f => match split_code(element.value) {
            Some((_, scope)) => return check_level(scope, level + 1),
            None => false,
        },
        kind => Class::of(kind).is_some(),
    };
    if good { Ok(()) } else { Err(corrupt("order an _id: a value in it is malformed")) }
}

/// Whether these are a length, bytes and a closing zero.
fn is_string(value: &[u8]) -> bool {
    value.len() > 4 && value.last() == Some(&0)
}

/// The name and the object id of a database pointer. The index sees the name up to its first zero only.
fn split_pointer(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (string, object_id) = value.split_at_checked(value.len().checked_sub(OBJECT_ID_BYTES)?)?;
    let name = string.get(4..)?.split(|byte| *byte == 0).next()?;
    is_string(string).then_some((name, object_id))
}

/// The string and the scope of code, which follow its whole length.
fn split_code(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = value.get(4..)?;
    let length = usize::try_from(i32::from_le_bytes(*rest.first_chunk()?)).ok()?;
    let (string, scope) = rest.split_at_checked(length.checked_add(4)?)?;
    is_string(string).then_some((string, scope))
}

/// Whether the names of fields are compared: in documents they are, in arrays not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Matter,
    AreIgnored,
}

fn compare_fields(left: &[u8], right: &[u8], names: Names) -> Ordering {
    let (mut lefts, mut rights) = (elements(left).flatten(), elements(right).flatten());
    loop {
        let (left, right) = match (lefts.next(), rights.next()) {
            (Some(left), Some(right)) => (left, right),
            (left, right) => return left.is_some().cmp(&right.is_some()),
        };
        let mut order = Class::of(left.kind).cmp(&Class::of(right.kind));
        if names == Names::Matter {
            order = order.then_with(|| left.name.cmp(right.name));
        }
        order = order.then_with(|| compare_values(&left, &right));
        if order.is_ne() {
            return order;
        }
    }
}

/// Compares two values of one class.
fn compare_values(left: &Element<'_>, right: &Element<'_>) -> Ordering {
    use Class::{
        Array, Binary, Boolean, Code, CodeWithScope, Date, Document, Number, Pointer, Text, Timestamp,
    };
    let (one, two) = (left.value, right.value);
    match Class::of(left.kind) {
        Some(Number) => compare_numbers(left, right),
        Some(Text | Code) => compare_strings(one, two),
        Some(Document) => compare_documents(one, two),
        Some(Array) => compare_fields(one, two, Names::AreIgnored),
        Some(Binary) => shorter_first(one, two),
        Some(Boolean) => (one != [0]).cmp(&(two != [0])),
        Some(Date) => {
            let millis = |value: &[u8]| value.first_chunk().map(|bytes| i64::from_le_bytes(*bytes));
            millis(one).cmp(&millis(two))
        }
        Some(Timestamp) => {
            let instant = |value: &[u8]| value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            instant(one).cmp(&instant(two))
        }
        Some(Pointer) => compare_parts(split_pointer(one), split_pointer(two), shorter_first, <[u8]>::cmp),
        Some(CodeWithScope) => {
            compare_parts(split_code(one), split_code(two), compare_strings, compare_documents)
        }
        // Object ids, and pattern and flags of regular expressions; the others have no bytes.
        _ => one.cmp(two),
    }
}

/// The bytes after the length, with the closing zero: the longer of two that begin alike comes after.
fn compare_strings(one: &[u8], two: &[u8]) -> Ordering {
    one.get(4..).cmp(&two.get(4..))
}

fn shorter_first(one: &[u8], two: &[u8]) -> Ordering {
    one.len().cmp(&two.len()).then_with(|| one.cmp(two))
}

type Parts<'a> = Option<(&'a [u8], &'a [u8])>;

/// Compares by the first parts, then by the second ones.
fn compare_parts(
    one: Parts<'_>,
    two: Parts<'_>,
    first: impl Fn(&[u8], &[u8]) -> Ordering,
    second: impl Fn(&[u8], &[u8]) -> Ordering,
) -> Ordering {
    match (one, two) {
        (Some(one), Some(two)) => first(one.0, two.0).then_with(|| second(one.1, two.1)),
        (one, two) => one.is_some().cmp(&two.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    type Value = (u8, Vec<u8>);

    fn wrapped(bytes: &[u8], zero: &[u8]) -> Vec<u8> {
        let length = i32::try_from(bytes.len() + zero.len()).unwrap();
        [&length.to_le_bytes()[..], bytes, zero].concat()
    }

    fn text(bytes: &[u8]) -> Value {
        (0x02, wrapped(bytes, &[0]))
    }

    fn int(value: i32) -> Value {
        (0x10, value.to_le_bytes().to_vec())
    }

    fn fields(all: &[(&str, Value)]) -> Vec<u8> {
        let elements =
            all.iter().map(|(name, (kind, value))| [&[*kind][..], name.as_bytes(), &[0], value].concat());
        let elements = elements.collect::<Vec<_>>().concat();
        let length = i32::try_from(elements.len() + 5).unwrap();
        [&length.to_le_bytes()[..], &elements, &[0]].concat()
    }

    fn document(all: &[(&str, Value)]) -> Value {
        (0x03, fields(all))
    }

    fn binary(subtype: u8, bytes: &[u8]) -> Value {
        let length = i32::try_from(bytes.len()).unwrap();
        (0x05, [&length.to_le_bytes()[..], &[subtype], bytes].concat())
    }

    fn pointer(name: &[u8], last: u8) -> Value {
        (0x0c, [wrapped(name, &[0]), vec![last; OBJECT_ID_BYTES]].concat())
    }

    fn code_with_scope(code: &[u8], scope: &[(&str, Value)]) -> Value {
        let inner = [wrapped(code, &[0]), fields(scope)].concat();
        let length = i32::try_from(inner.len() + 4).unwrap();
        (0x0f, [&length.to_le_bytes()[..], &inner].concat())
    }

    fn alone(value: &Value) -> Vec<u8> {
        fields(&[("_id", value.clone())])
    }

    fn compare(left: &Value, right: &Value) -> Ordering {
        compare_documents(&alone(left), &alone(right))
    }

    fn simple_lines() -> Vec<Vec<Value>> {
        let null = (0x0a, vec![]);
        vec![
            vec![(0xff, vec![])],
            vec![(0x06, vec![])],
            vec![null.clone()],
            vec![(0x01, f64::NAN.to_le_bytes().to_vec())],
            vec![int(-1)],
            vec![int(1), (0x12, 1_i64.to_le_bytes().to_vec()), (0x01, 1_f64.to_le_bytes().to_vec())],
            vec![text(b""), (0x0e, text(b"").1)],
            vec![text(b"a"), (0x0e, text(b"a").1)],
            vec![text(b"a\0")],
            vec![text(b"a\0b")],
            vec![text(b"a\x01")],
            vec![text(b"aa")],
            vec![text(b"b")],
            vec![text(b"\xff")],
            vec![document(&[])],
            vec![document(&[("b", null.clone())])],
            vec![document(&[("a", int(1))]), document(&[("a", (0x01, 1_f64.to_le_bytes().to_vec()))])],
            vec![document(&[("a", int(1)), ("b", null.clone())])],
            vec![document(&[("a", int(2))])],
            vec![document(&[("aa", int(1))])],
            vec![document(&[("b", int(0))])],
            vec![document(&[("a", text(b""))])],
            vec![document(&[("a", document(&[("x", int(1))]))])],
            vec![(0x04, fields(&[]))],
            vec![(0x04, fields(&[("0", null)]))],
            vec![(0x04, fields(&[("0", int(1))])), (0x04, fields(&[("7", int(1))]))],
            vec![(0x04, fields(&[("0", int(1)), ("1", int(1))]))],
            vec![(0x04, fields(&[("0", int(2))]))],
        ]
    }

    fn other_lines() -> Vec<Vec<Value>> {
        vec![
            vec![binary(0, b"")],
            vec![binary(5, b"")],
            vec![binary(0, b"b")],
            vec![binary(1, b"a")],
            vec![binary(0, b"aa")],
            vec![(0x07, vec![0; 12])],
            vec![(0x07, vec![0xff; 12])],
            vec![(0x08, vec![0])],
            vec![(0x08, vec![1])],
            vec![(0x09, i64::MIN.to_le_bytes().to_vec())],
            vec![(0x09, (-1_i64).to_le_bytes().to_vec())],
            vec![(0x09, 256_i64.to_le_bytes().to_vec())],
            vec![(0x11, 255_u64.to_le_bytes().to_vec())],
            vec![(0x11, (1_u64 << 32).to_le_bytes().to_vec())],
            vec![(0x11, u64::MAX.to_le_bytes().to_vec())],
            vec![(0x0b, b"a\0\0".to_vec())],
            vec![(0x0b, b"a\0i\0".to_vec())],
            vec![(0x0b, b"ab\0\0".to_vec())],
            vec![pointer(b"b", 1), pointer(b"b\0c", 1)],
            vec![pointer(b"b", 2)],
            vec![pointer(b"aa", 0)],
            vec![(0x0d, text(b"a").1)],
            vec![(0x0d, text(b"b").1)],
            vec![code_with_scope(b"a", &[])],
            vec![code_with_scope(b"a", &[("x", int(1))])],
            vec![code_with_scope(b"b", &[])],
            vec![(0x7f, vec![])],
        ]
    }

    /// Every line is one value; each is above the one before.
    #[test]
    fn values_stand_in_the_order_of_the_server() {
        let lines = [simple_lines(), other_lines()].concat().into_iter().enumerate();
        let all: Vec<(usize, Value)> =
            lines.flat_map(|(n, line)| line.into_iter().map(move |it| (n, it))).collect();
        for (n, left) in &all {
            check_document(&alone(left)).unwrap();
            for (m, right) in &all {
                assert_eq!(compare(left, right), n.cmp(m), "{left:x?} (line {n}) and {right:x?} (line {m})");
            }
        }
    }

    fn nested(levels: usize) -> Value {
        (0..levels).fold(int(1), |inner, _| document(&[("", inner)]))
    }

    #[test]
    fn only_what_is_well_formed_is_compared() {
        let check = |value: &Value, good: bool| {
            for value in [
                value.clone(),
                document(&[("a", value.clone())]),
                code_with_scope(b"", &[("a", value.clone())]),
            ] {
                let checked = check_document(&alone(&value)).map_err(|why| why.kind());
                assert_eq!(checked, if good { Ok(()) } else { Err(ErrorKind::Corrupt) }, "{value:x?}");
            }
        };
        check(&text(b"\xff"), true);
        check(&nested(LEVELS_MAX - 1), true);
        check(&nested(LEVELS_MAX + 1), false);
        check(&(0x20, vec![]), false);
        check(&(0x02, vec![0; 4]), false);
        check(&(0x02, wrapped(b"ab", b"")), false);
        check(&(0x0d, wrapped(b"ab", b"")), false);
        check(&(0x03, vec![5, 0, 0, 0, 1]), false);
        check(&(0x03, vec![6, 0, 0, 0, 0x20, 0]), false);
        check(&(0x0c, [wrapped(b"a\0b", b""), vec![0; OBJECT_ID_BYTES]].concat()), false);
        check(&(0x0f, [vec![14, 0, 0, 0], wrapped(b"x", b""), vec![5, 0, 0, 0, 0]].concat()), false);
        check(&(0x0f, [vec![14, 0, 0, 0], vec![99, 0, 0, 0, 0], vec![5, 0, 0, 0, 0]].concat()), false);
        check(&(0x0f, [vec![14, 0, 0, 0], wrapped(b"", &[0]), vec![6, 0, 0, 0, 0]].concat()), false);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let simple = [simple_lines(), other_lines()].concat().concat();
        let number = prop_oneof![
            (-3_i32..4).prop_map(int),
            (-9_i32..9).prop_map(|half| (0x01_u8, (f64::from(half) / 2.0).to_le_bytes().to_vec())),
        ];
        let leaf = prop_oneof![proptest::sample::select(simple), number];
        leaf.prop_recursive(3, 12, 3, |inner| {
            let name = proptest::sample::select(vec!["", "a", "aa", "b"]);
            let kinds = proptest::sample::select(vec![0x03_u8, 0x04, 0x0f]);
            (kinds, proptest::collection::vec((name, inner), 0..3)).prop_map(|(kind, all)| match kind {
                0x0f => code_with_scope(b"", &all),
                kind => (kind, fields(&all)),
            })
        })
    }

    proptest! {
        #[test]
        fn the_order_is_total(one in any_value(), two in any_value(), three in any_value()) {
            prop_assert!(check_document(&alone(&one)).is_ok());
            prop_assert_eq!(compare(&one, &two), compare(&two, &one).reverse());
            prop_assert_eq!(compare(&one, &one), Ordering::Equal);
            let (first, second) = (compare(&one, &two), compare(&two, &three));
            if first == second || second.is_eq() {
                prop_assert_eq!(compare(&one, &three), first);
            }
        }
    }
}
