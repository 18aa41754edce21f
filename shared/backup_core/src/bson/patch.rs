//! Patching one document by one update event, so that every byte of it is as the server has it.
//!
//! The update is the diff with which the server itself keeps its other members equal. It is read into a tree of edits
//! first; then the document is written anew in one pass, and what the update does not touch is copied as it is. So
//! duplicate names (the first one is meant), invalid UTF-8 and deprecated types survive, and the time grows with the
//! document and the update, not with their product.
//!
//! Nothing is guessed: an update of an unknown form is `Corrupt`, and so is one that does not fit the document, unless
//! the caller knows why it may not.

mod edits;
#[cfg(test)]
mod tests;

use bson::RawDocument;

use self::edits::{Edit, Fields, Items, Value, read_update};
use super::walk::{DOCUMENT_BYTES_MAX, Element, elements};
use crate::error::{Error, Result, corrupt};

/// The type byte of a document.
const DOCUMENT: u8 = 0x03;
/// The type byte of an array.
const ARRAY: u8 = 0x04;
/// The type byte of null.
const NULL: u8 = 0x0a;
/// Where misfits are passed over, a document may hold for a while what it never held at the same time.
const TOLERANT_BYTES_MAX: usize = 4 * DOCUMENT_BYTES_MAX;

/// `document` as it is after the change that `update` (an event's `rawUpdateDescription`) describes.
///
/// A field is deleted, set in its place, put to the end (also if it is there already), or changed inside. An array is
/// cut to a length, and its items are set or changed inside; an index behind its end extends it, with nulls where
/// needed.
///
/// What is deleted, set in its place or changed inside has to be there, and an array has to be longer than what it is
/// cut to: a server tells only of what it did, so anything else means that this is not the document it changed.
pub fn apply_update(document: &[u8], update: &RawDocument) -> Result<Vec<u8>> {
    apply(document, update, Misfits::Refused)
}

/// The same for a document that may have this change already, and later ones: what does not fit is passed over, place
/// by place, and a field that is to be set in its place but is missing goes to the end. Once all changes that it had
/// are applied to it again, it is what it was, to the byte: what did not fit was deleted or overwritten since.
pub(crate) fn apply_update_tolerantly(document: &[u8], update: &RawDocument) -> Result<Vec<u8>> {
    apply(document, update, Misfits::PassedOver)
}

/// Whether `update` (an event's `rawUpdateDescription`) can be read at all. Newer servers may have more forms.
pub(crate) fn is_known_update(update: &RawDocument) -> bool {
    read_update(update).is_ok()
}

fn apply(document: &[u8], update: &RawDocument, misfits: Misfits) -> Result<Vec<u8>> {
    let edits = read_update(update)?;
    RawDocument::from_bytes(document)
        .map_err(|_| corrupt("apply a change: the document is not as long as it says"))?;
    let capacity = document.len().saturating_add(update.as_bytes().len()).min(DOCUMENT_BYTES_MAX);
    let mut output = Output { bytes: Vec::with_capacity(capacity), misfits };
    output.document(document, edits)?;
    Ok(output.bytes)
}

/// What becomes of an edit that does not fit the document.
#[derive(Clone, Copy)]
enum Misfits {
    Refused,
    PassedOver,
}

/// The new document, as far as it is written.
struct Output {
    bytes: Vec<u8>,
    misfits: Misfits,
}

impl Output {
    /// Writes a document with what becomes of its fields.
    fn document<'a>(&mut self, document: &'a [u8], mut edits: Fields<'a>) -> Result<()> {
        let start = self.begin();
        let mut last: Vec<(&[u8], Value<'_>)> = Vec::new();
        for element in elements(document) {
            let element = element?;
            // Taken out of the tree: another field of the same name is not meant.
            match edits.remove(element.name) {
                None => self.element(element.kind, element.name, element.value)?,
                Some(Edit::Remove) => {}
                Some(Edit::PutLast(value)) => last.push((element.name, value)),
                Some(edit) => self.edited(element, edit)?,
            }
        }
        for (name, edit) in edits {
            match edit {
                Edit::PutLast(value) => last.push((name, value)),
                Edit::Set(value) => {
                    self.misfit()?;
                    last.push((name, value));
                }
                _ => self.misfit()?,
            }
        }
        last.sort_unstable_by_key(|(_, value)| value.order);
        for (name, value) in last {
            self.element(value.kind, name, value.bytes)?;
        }
        self.end(start)
    }

    /// Writes an array with what becomes of its items, cut to a length before.
    fn array<'a>(&mut self, array: &'a [u8], length: Option<usize>, mut edits: Items<'a>) -> Result<()> {
        let start = self.begin();
        let mut written = 0;
        for (index, element) in elements(array).take(length.unwrap_or(usize::MAX)).enumerate() {
            let element = element?;
            match edits.remove(&index) {
                None => self.element(element.kind, element.name, element.value)?,
                Some(edit) => self.edited(element, edit)?,
            }
            written = index + 1;
        }
        if length.is_some_and(|wanted| wanted > written) {
            self.misfit()?;
        }
        self.extend(written, edits)?;
        self.end(start)
    }

    /// Writes a value that is there as the edit has it.
    fn edited<'a>(&mut self, element: Element<'a>, edit: Edit<'a>) -> Result<()> {
        match (edit, element.kind) {
            (Edit::Set(value), _) => self.element(value.kind, element.name, value.bytes),
            (Edit::Fields(edits), DOCUMENT) => {
                self.head(element.kind, element.name);
                self.document(element.value, edits)
            }
            (Edit::Items { length, edits }, ARRAY) => {
                self.head(element.kind, element.name);
                self.array(element.value, length, edits)
            }
            _ => {
                self.misfit()?;
                self.element(element.kind, element.name, element.value)
            }
        }
    }

    /// Writes what comes behind the `length` items of an array.
    fn extend(&mut self, mut length: usize, edits: Items<'_>) -> Result<()> {
        for (index, edit) in edits {
            let Edit::Set(value) = edit else {
                self.misfit()?;
                continue;
            };
            for missing in length..index {
                self.element(NULL, missing.to_string().as_bytes(), &[])?;
            }
            self.element(value.kind, index.to_string().as_bytes(), value.bytes)?;
            length = index + 1;
        }
        Ok(())
    }

    fn misfit(&self) -> Result<()> {
        match self.misfits {
            Misfits::Refused => Err(corrupt("apply a change: it does not fit the document")),
            Misfits::PassedOver => Ok(()),
        }
    }

    fn element(&mut self, kind: u8, name: &[u8], value: &[u8]) -> Result<()> {
        self.head(kind, name);
        self.bytes.extend_from_slice(value);
        self.check_size()
    }

    fn head(&mut self, kind: u8, name: &[u8]) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
    }

    /// Begins a document; the answer is for [`Output::end`].
    fn begin(&mut self) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        start
    }

    fn end(&mut self, start: usize) -> Result<()> {
        self.bytes.push(0);
        self.check_size()?;
        let length = i32::try_from(self.bytes.len() - start).map_err(|_| too_large())?;
        if let Some(prefix) = self.bytes.get_mut(start..start + 4) {
            prefix.copy_from_slice(&length.to_le_bytes());
        }
        Ok(())
    }

    /// After every element, so that an index far behind the end of an array takes no memory.
    fn check_size(&self) -> Result<()> {
        let bytes_max = match self.misfits {
            Misfits::Refused => DOCUMENT_BYTES_MAX,
            Misfits::PassedOver => TOLERANT_BYTES_MAX,
        };
        if self.bytes.len() > bytes_max { Err(too_large()) } else { Ok(()) }
    }
}

fn too_large() -> Error {
    corrupt("apply a change: the document becomes larger than a server takes")
}
