//! What an update says, as a tree: what becomes of which place in the document.
//!
//! A `rawUpdateDescription` is `{$v: 2, diff: …}`, and a diff is what the server writes into its oplog. That of a
//! document has sections: the fields that are deleted (`d`), set in their place (`u`) and put to the end (`i`), and a
//! diff `s<field>` for each field that changes inside. That of an array begins with `a: true`, and has its new length
//! (`l`), new items (`u<index>`), and diffs `s<index>`. Newer servers have more sections.

use std::collections::BTreeMap;

use bson::RawDocument;

use super::DOCUMENT;
use crate::bson::walk::{Element, elements};
use crate::error::{Error, Result, corrupt};

/// The type byte of a boolean.
const BOOLEAN: u8 = 0x08;
/// The only version of diffs that is known.
const VERSION: usize = 2;
/// A server takes no document with more levels.
const LEVELS_MAX: usize = 200;

/// What becomes of the fields of a document, by name.
pub(super) type Fields<'a> = BTreeMap<&'a [u8], Edit<'a>>;
/// What becomes of the items of an array, by index.
pub(super) type Items<'a> = BTreeMap<usize, Edit<'a>>;

/// A new value.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) kind: u8,
    pub(super) bytes: &'a [u8],
    /// Where it stands among the edits of its document.
    pub(super) order: usize,
}

/// What becomes of a place.
pub(super) enum Edit<'a> {
    /// There is a value, and there will be none.
    Remove,
    /// This will be the value.
    Set(Value<'a>),
    /// This will be the value of a field at the end of its document; the field that is there goes.
    PutLast(Value<'a>),
    /// The value is a document in which something changes.
    Fields(Fields<'a>),
    /// The value is an array in which something changes.
    Items {
        /// What it is cut to before anything is set in it.
        length: Option<usize>,
        /// All of them are before that length.
        edits: Items<'a>,
    },
}

/// Reads a `rawUpdateDescription`. A part of it that is not known is refused: it may change the document.
pub(super) fn read_update(update: &RawDocument) -> Result<Fields<'_>> {
    let (mut version, mut diff) = (None, None);
    for element in elements(update.as_bytes()) {
        let element = element?;
        match element.name {
            b"$v" => version = integer(element),
            b"diff" if element.kind == DOCUMENT => diff = Some(element.value),
            _ => return Err(unknown()),
        }
    }
    match (version, diff) {
        (Some(VERSION), Some(diff)) => fields(diff, 0),
        _ => Err(unknown()),
    }
}

fn fields<'a>(diff: &'a [u8], level: usize) -> Result<Fields<'a>> {
    let mut fields = Fields::new();
    for section in elements(diff) {
        let section = section?;
        let edit: fn(Value<'a>) -> Edit<'a> = match section.name {
            b"d" => |_| Edit::Remove,
            b"u" => Edit::Set,
            b"i" => Edit::PutLast,
            [b's', name @ ..] => {
                put(&mut fields, name, inside(section, level + 1)?)?;
                continue;
            }
            _ => return Err(unknown()),
        };
        if section.kind != DOCUMENT {
            return Err(malformed());
        }
        for field in elements(section.value) {
            let Element { kind, name, value } = field?;
            let order = fields.len();
            put(&mut fields, name, edit(Value { kind, bytes: value, order }))?;
        }
    }
    Ok(fields)
}

/// Reads the diff of a value that changes inside.
fn inside(section: Element<'_>, level: usize) -> Result<Edit<'_>> {
    if section.kind != DOCUMENT || level > LEVELS_MAX {
        return Err(malformed());
    }
    let first = elements(section.value).next().transpose()?;
    if first.is_some_and(|first| first.name == b"a") {
        items(section.value, level)
    } else {
        fields(section.value, level).map(Edit::Fields)
    }
}

fn items(diff: &[u8], level: usize) -> Result<Edit<'_>> {
    let (mut length, mut edits) = (None, Items::new());
    for section in elements(diff) {
        let section = section?;
        match section.name {
            b"a" if section.kind == BOOLEAN && section.value == [1] => {}
            b"l" => length = Some(integer(section).ok_or_else(malformed)?),
            [b'u', index @ ..] => {
                let value = Value { kind: section.kind, bytes: section.value, order: edits.len() };
                put(&mut edits, array_index(index)?, Edit::Set(value))?;
            }
            [b's', index @ ..] => put(&mut edits, array_index(index)?, inside(section, level + 1)?)?,
            _ => return Err(unknown()),
        }
    }
    // An array is cut or extended, never both.
    let is_behind = |length: usize| edits.last_key_value().is_some_and(|(last, _)| *last >= length);
    if length.is_some_and(is_behind) { Err(malformed()) } else { Ok(Edit::Items { length, edits }) }
}

fn put<'a, K: Ord>(edits: &mut BTreeMap<K, Edit<'a>>, place: K, edit: Edit<'a>) -> Result<()> {
    match edits.insert(place, edit) {
        None => Ok(()),
        Some(_) => Err(corrupt("apply a change: it tells of one place twice")),
    }
}

/// The index these digits are, as a server writes it.
fn array_index(text: &[u8]) -> Result<usize> {
    let is_canonical = text.iter().all(u8::is_ascii_digit) && (text == b"0" || !text.starts_with(b"0"));
    let digits = std::str::from_utf8(text).ok().filter(|_| is_canonical);
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(malformed)
}

/// An integer that is not negative.
fn integer(element: Element<'_>) -> Option<usize> {
    let number = match element.kind {
        0x10 => i64::from(i32::from_le_bytes(element.value.try_into().ok()?)),
        0x12 => i64::from_le_bytes(element.value.try_into().ok()?),
        _ => return None,
    };
    usize::try_from(number).ok()
}

fn malformed() -> Error {
    corrupt("apply a change: it is malformed")
}

fn unknown() -> Error {
    corrupt("apply a change: it is of an unknown form")
}
