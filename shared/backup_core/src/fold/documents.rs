//! Folding the changes of one document into it.
//!
//! Folding is exact: a change that presumes a document must meet one, and one that presumes none must meet none.
//! Anything else means that changes are missing, or that the base is not what it is taken for, and is `Corrupt`.
//!
//! A base that was read while it changed already has some of the changes that are folded into it. There, folding is
//! tolerant: what does not fit is passed over. A change can only fail to fit because of a later one that is in the
//! base already and is folded again, so the end is the same.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use bson::RawDocument;

use crate::bson::{Element, IdKey, apply_update, apply_update_tolerantly, elements};
use crate::error::{Result, corrupt};
use crate::timeline::Change;

/// What happened to one document.
#[derive(Clone, PartialEq, Eq)]
pub enum DocumentChange {
    /// It came to be: the document as the server stored it.
    Insert(Box<[u8]>),
    /// It was replaced as a whole: the document as the server stored it.
    Replace(Box<[u8]>),
    /// Parts of it changed: the event's `rawUpdateDescription`.
    Patch(Box<[u8]>),
    /// It was deleted.
    Gone,
}

impl DocumentChange {
    /// The change with the `_id` of its document; none if it is not of a document.
    pub fn of(change: &Change<'_>) -> Result<Option<(IdKey, Self)>> {
        Ok(Some(match change {
            Change::Insert { id, document } => (id.clone(), Self::Insert(as_stored(document)?)),
            Change::Replace { id, document } => (id.clone(), Self::Replace(as_stored(document)?)),
            Change::Update { id, update } => (id.clone(), Self::Patch(update.as_bytes().into())),
            Change::Delete { id } => (id.clone(), Self::Gone),
            _ => return Ok(None),
        }))
    }

    /// How much memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let content = match self {
            Self::Insert(bytes) | Self::Replace(bytes) | Self::Patch(bytes) => bytes.len(),
            Self::Gone => 0,
        };
        size_of::<Self>() + content
    }

    /// Whether there is a document before it.
    const fn presumes_document(&self) -> bool {
        !matches!(self, Self::Insert(_))
    }

    /// Whether there is a document after it.
    const fn leaves_document(&self) -> bool {
        !matches!(self, Self::Gone)
    }
}

/// Shows nothing of the content.
impl fmt::Debug for DocumentChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insert(bytes) => write!(f, "Insert({} bytes)", bytes.len()),
            Self::Replace(bytes) => write!(f, "Replace({} bytes)", bytes.len()),
            Self::Patch(bytes) => write!(f, "Patch({} bytes)", bytes.len()),
            Self::Gone => f.write_str("Gone"),
        }
    }
}

/// Servers store `_id` first, wherever it stands in the event.
fn as_stored(document: &RawDocument) -> Result<Box<[u8]>> {
    let mut stored: Box<[u8]> = document.as_bytes().into();
    let mut end = 4;
    for element in elements(document.as_bytes()) {
        let Element { name, value, .. } = element?;
        let length = name.len() + value.len() + 2; // with the type before and the zero behind the name
        end += length;
        if name == b"_id" {
            if let Some(up_to_it) = stored.get_mut(4..end) {
                up_to_it.rotate_right(length);
            }
            return Ok(stored);
        }
    }
    Err(corrupt("fold a change: its document has no _id"))
}

/// The document after all changes, in their order; none if there is none then.
pub fn fold(base: Option<&[u8]>, changes: &[DocumentChange]) -> Result<Option<Vec<u8>>> {
    let mut is_there = base.is_some();
    for change in changes {
        check_presence(change.presumes_document(), is_there)?;
        is_there = change.leaves_document();
    }
    run(base, changes, apply_update)
}

/// The same for a base that may have some of the changes already.
pub fn fold_tolerantly(base: Option<&[u8]>, changes: &[DocumentChange]) -> Result<Option<Vec<u8>>> {
    run(base, changes, apply_update_tolerantly)
}

fn check_presence(is_presumed: bool, is_there: bool) -> Result<()> {
    match (is_presumed, is_there) {
        (true, false) => Err(corrupt("fold a change: it is of a document that is not there")),
        (false, true) => Err(corrupt("fold a change: a document came to be that was there already")),
        _ => Ok(()),
    }
}

/// A patch of a document that is not there is passed over: who does not tolerate that has checked it before.
fn run(
    base: Option<&[u8]>,
    changes: &[DocumentChange],
    patch: fn(&[u8], &RawDocument) -> Result<Vec<u8>>,
) -> Result<Option<Vec<u8>>> {
    let mut state: Option<Cow<'_, [u8]>> = base.map(Cow::Borrowed);
    for change in changes {
        state = match (change, state) {
            (DocumentChange::Insert(document) | DocumentChange::Replace(document), _) => {
                Some(Cow::Borrowed(document.as_ref()))
            }
            (DocumentChange::Patch(update), Some(document)) => {
                Some(Cow::Owned(patch(&document, as_document(update)?)?))
            }
            (DocumentChange::Gone, _) | (DocumentChange::Patch(_), None) => None,
        };
    }
    Ok(state.map(Cow::into_owned))
}

fn as_document(bytes: &[u8]) -> Result<&RawDocument> {
    RawDocument::from_bytes(bytes).map_err(|_| corrupt("fold a change: it is malformed"))
}

/// The changes of one document, waiting for it. Those that a later one makes void are forgotten, but not what the
/// first one presumed.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    /// Whether the first change presumed a document; none before there was one.
    presumes_document: Option<bool>,
    /// Whether some change presumed something else than the one before it left.
    is_broken: bool,
    /// All but the first are patches.
    changes: Vec<DocumentChange>,
    /// How much memory those take.
    bytes: usize,
}

impl Pending {
    /// Adds the next change.
    pub fn push(&mut self, change: DocumentChange) {
        match self.changes.last() {
            Some(last) => self.is_broken |= change.presumes_document() != last.leaves_document(),
            None => self.presumes_document = Some(change.presumes_document()),
        }
        if !matches!(change, DocumentChange::Patch(_)) {
            self.changes.clear();
            self.bytes = 0;
        }
        self.bytes += change.bytes();
        if self.changes.is_empty() {
            self.changes.reserve_exact(1); // most documents change once
        }
        self.changes.push(change);
    }

    /// How much memory it takes; nothing while there was no change.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        if self.is_empty() { 0 } else { size_of::<Self>() + self.bytes }
    }

    /// Whether there was no change.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.presumes_document.is_none()
    }

    /// The document after the changes; none if there is none then.
    pub fn fold(&self, base: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        if self.is_broken {
            return Err(corrupt("fold a change: it does not follow from the one before it"));
        }
        if let Some(is_presumed) = self.presumes_document {
            check_presence(is_presumed, base.is_some())?;
        }
        run(base, &self.changes, apply_update)
    }

    /// The same for a base that may have some of the changes already.
    pub fn fold_tolerantly(&self, base: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        fold_tolerantly(base, &self.changes)
    }
}
