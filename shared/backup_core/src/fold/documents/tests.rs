//! What exact and tolerant folding make of changes, one after the other and waiting together.

use bson::{RawDocumentBuf, rawdoc};
use proptest::prelude::*;

use super::*;
use crate::bson::IdValue;
use crate::error::ErrorKind;

fn boxed(document: &RawDocument) -> Box<[u8]> {
    document.as_bytes().into()
}

fn insert(value: i32) -> DocumentChange {
    DocumentChange::Insert(boxed(&rawdoc! { "_id": 1, "v": value }))
}

fn replace(value: i32) -> DocumentChange {
    DocumentChange::Replace(boxed(&rawdoc! { "_id": 1, "v": value }))
}

fn patch(diff: RawDocumentBuf) -> DocumentChange {
    DocumentChange::Patch(boxed(&rawdoc! { "$v": 2, "diff": diff }))
}

fn set(value: i32) -> DocumentChange {
    patch(rawdoc! { "u": { "v": value } })
}

const GONE: DocumentChange = DocumentChange::Gone;

fn document(value: i32) -> RawDocumentBuf {
    rawdoc! { "_id": 1, "v": value }
}

fn pending(changes: &[DocumentChange]) -> Pending {
    let mut pending = Pending::default();
    for change in changes {
        pending.push(change.clone());
    }
    pending
}

#[test]
fn a_change_must_meet_what_it_presumes() {
    let check = |base: Option<i32>, changes: &[DocumentChange], expected: Result<Option<i32>, &str>| {
        let base = base.map(document);
        let base = base.as_ref().map(|base| base.as_bytes());
        let expected = expected.map(|it| it.map(|value| document(value).into_bytes()));
        let exact = fold(base, changes).map_err(|why| why.to_string());
        assert_eq!(exact, expected.map_err(|why| format!("fold a change: {why}")), "{changes:?}");
        assert_eq!(pending(changes).fold(base).ok(), exact.ok(), "{changes:?}");
    };
    let missing = Err("it is of a document that is not there");
    let double = Err("a document came to be that was there already");
    check(None, &[], Ok(None));
    check(Some(1), &[], Ok(Some(1)));
    check(None, &[insert(2)], Ok(Some(2)));
    check(Some(1), &[insert(2)], double);
    check(Some(1), &[replace(2)], Ok(Some(2)));
    check(None, &[replace(2)], missing);
    check(Some(1), &[set(2), set(3)], Ok(Some(3)));
    check(None, &[set(2)], missing);
    check(Some(1), &[GONE], Ok(None));
    check(None, &[GONE], missing);
    check(None, &[insert(2), set(3), GONE, insert(4), replace(5), set(6)], Ok(Some(6)));
    check(Some(1), &[GONE, insert(4), GONE], Ok(None));
    check(None, &[insert(2), GONE], Ok(None));
    check(Some(1), &[insert(2), GONE], double);
    check(None, &[insert(2), insert(3)], double);
    check(Some(1), &[GONE, GONE], missing);
    check(Some(1), &[GONE, set(2), replace(3)], missing);
}

#[test]
fn only_what_counts_is_kept() {
    let sum = |changes: &[DocumentChange]| changes.iter().map(DocumentChange::bytes).sum::<usize>();
    let check = |changes: &[DocumentChange], kept: &[DocumentChange]| {
        let pending = pending(changes);
        assert_eq!(pending.changes, kept);
        let own = if kept.is_empty() { 0 } else { size_of::<Pending>() };
        assert_eq!(pending.bytes(), own + sum(kept));
        assert_eq!(pending.is_empty(), changes.is_empty());
    };
    check(&[], &[]);
    check(&[set(1), set(2)], &[set(1), set(2)]);
    check(&[insert(1), set(2), set(3)], &[insert(1), set(2), set(3)]);
    check(&[set(1), replace(2)], &[replace(2)]);
    check(&[insert(1), set(2), GONE], &[GONE]);
    check(&[GONE, insert(1), set(2)], &[insert(1), set(2)]);
}

#[test]
fn changes_of_documents_are_taken_as_the_server_stored_them() {
    let check = |document: RawDocumentBuf, expected: Option<RawDocumentBuf>| {
        let id = IdKey::new(IdValue::of_document(rawdoc! { "_id": 1 }.as_bytes()).unwrap().unwrap()).unwrap();
        let made = DocumentChange::of(&Change::Replace { id: id.clone(), document: &document });
        let Some(expected) = expected else {
            assert_eq!(made.unwrap_err().kind(), ErrorKind::Corrupt);
            return;
        };
        let (key, change) = made.unwrap().unwrap();
        assert!(key == id && change == DocumentChange::Replace(boxed(&expected)), "{document:?}");
    };
    check(rawdoc! { "_id": 1, "a": 2 }, Some(rawdoc! { "_id": 1, "a": 2 }));
    check(rawdoc! { "a": "x", "_id": 1 }, Some(rawdoc! { "_id": 1, "a": "x" }));
    check(
        rawdoc! { "a": {}, "b": [1], "_id": 1, "c": 3 },
        Some(rawdoc! { "_id": 1, "a": {}, "b": [1], "c": 3 }),
    );
    check(rawdoc! { "a": 2 }, None);
    assert!(DocumentChange::of(&Change::Drop).unwrap().is_none());
}

#[test]
fn what_does_not_fit_a_newer_base_is_passed_over() {
    let check =
        |base: Option<RawDocumentBuf>, changes: &[DocumentChange], expected: Option<RawDocumentBuf>| {
            let base = base.as_ref().map(|base| base.as_bytes());
            let expected = expected.map(RawDocumentBuf::into_bytes);
            assert_eq!(fold_tolerantly(base, changes).unwrap(), expected, "{changes:?}");
            assert_eq!(pending(changes).fold_tolerantly(base).unwrap(), expected, "{changes:?}");
        };
    check(Some(document(1)), &[insert(2)], Some(document(2)));
    check(None, &[set(2), GONE], None);
    check(None, &[set(2), insert(3)], Some(document(3)));
    check(None, &[GONE, GONE, replace(3)], Some(document(3)));
    // Only the places that do not fit are passed over, so that `w` does not stay 2.
    let nested = patch(rawdoc! { "d": { "z": false }, "u": { "w": 3 }, "sv": { "u": { "a": 1 } } });
    let base = rawdoc! { "_id": 1, "v": 7, "w": 3 };
    let earlier = patch(rawdoc! { "u": { "w": 2 } });
    check(Some(base.clone()), &[earlier, nested], Some(base));
    // What is added again stands where it stood in the end.
    let (came, went) = (patch(rawdoc! { "i": { "x": 1 } }), patch(rawdoc! { "d": { "x": false } }));
    let end = rawdoc! { "_id": 1, "v": 1, "y": 2, "x": 1 };
    check(Some(end.clone()), &[came.clone(), went, patch(rawdoc! { "i": { "y": 2 } }), came], Some(end));
}

/// One of some changes that get into each other's way.
fn change(which: u8) -> DocumentChange {
    let n = i32::from(which);
    let diff = match which % 20 {
        0 => return DocumentChange::Insert(boxed(&rawdoc! { "_id": 1, "a": { "b": n }, "l": [n] })),
        1 => return DocumentChange::Replace(boxed(&rawdoc! { "_id": 1, "a": n })),
        2 => return GONE,
        3 => rawdoc! { "u": { "a": n } },
        4 => rawdoc! { "u": { "a": { "b": n } } },
        5 => rawdoc! { "i": { "a": { "c": n } } },
        6 => rawdoc! { "u": { "c": n }, "sa": { "u": { "b": n } } },
        7 => rawdoc! { "i": { "c": n, "a": n } },
        8 => rawdoc! { "d": { "a": false } },
        9 => rawdoc! { "d": { "c": false } },
        10 => rawdoc! { "sa": { "i": { "b": n, "c": n } } },
        11 => rawdoc! { "sa": { "d": { "b": false }, "i": { "c": { "d": n } } } },
        12 => rawdoc! { "i": { "l": [n, n, n], "c": n } },
        13 => rawdoc! { "sl": { "a": true, "l": 1 } },
        14 => rawdoc! { "sl": { "a": true, "u2": n } },
        15 => rawdoc! { "u": { "l": [[n], { "b": n }] } },
        16 => rawdoc! { "sl": { "a": true, "u4": n, "s1": { "i": { "b": n } } } },
        17 => rawdoc! { "sl": { "a": true, "l": 2, "s0": { "a": true, "u1": n } } },
        18 => rawdoc! { "u": { "l": n } },
        _ => rawdoc! { "i": { "l": { "b": n } }, "sa": { "sc": { "u": { "d": n } } } },
    };
    patch(diff)
}

proptest! {
    #[test]
    fn waiting_changes_nothing(base in any::<bool>(), which in proptest::collection::vec(0_u8..4, 0..8)) {
        let changes: Vec<DocumentChange> = which
            .iter()
            .map(|which| [insert(2), replace(3), set(4), GONE][usize::from(*which)].clone())
            .collect();
        let base = base.then(|| document(1));
        let base = base.as_ref().map(|base| base.as_bytes());
        prop_assert_eq!(pending(&changes).fold(base).ok(), fold(base, &changes).ok());
    }

    /// Folding into a base of any later time the changes since any earlier one leads to the same end.
    #[test]
    fn a_base_may_be_newer_than_its_changes(which in proptest::collection::vec(any::<u8>(), 0..40)) {
        let (mut changes, mut states): (Vec<DocumentChange>, Vec<Option<Vec<u8>>>) = (Vec::new(), vec![None]);
        for change in which.into_iter().map(change) {
            let state = states.last().unwrap().as_deref();
            if let Ok(next) = fold(state, std::slice::from_ref(&change)) {
                changes.push(change);
                states.push(next);
            }
        }
        let last = states.last().unwrap();
        for from in 0..changes.len() {
            for base in &states[from..] {
                let end = fold_tolerantly(base.as_deref(), &changes[from..]).unwrap();
                prop_assert_eq!(&end, last, "{:?}", &changes[from..]);
            }
        }
    }
}
