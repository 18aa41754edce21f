//! Tables of single updates, and generated documents whose differences a model of the server tells.

mod model;

use bson::{Document, RawDocumentBuf, rawdoc};
use proptest::prelude::*;

use self::model::Choices;
use super::*;
use crate::error::ErrorKind;

fn update(diff: RawDocumentBuf) -> RawDocumentBuf {
    rawdoc! { "$v": 2, "diff": diff }
}

/// What becomes of `before`, first by exact and then by tolerant patching; `None`: the update is refused.
fn check_both(before: &RawDocument, update: &RawDocument, expected: [Option<RawDocumentBuf>; 2]) {
    let shown = || format!("{} + {}", text(before), text(update));
    let (exact, tolerant) =
        (apply_update(before.as_bytes(), update), apply_update_tolerantly(before.as_bytes(), update));
    for (outcome, expected) in [exact, tolerant].into_iter().zip(expected) {
        match (outcome, expected) {
            (Ok(after), Some(expected)) => {
                let after = RawDocumentBuf::from_bytes(after).unwrap();
                assert_eq!(after, expected, "{} = {} and not {}", shown(), text(&after), text(&expected));
            }
            (Err(why), None) => assert_eq!(why.kind(), ErrorKind::Corrupt, "{}", shown()),
            (outcome, expected) => panic!("{}: {outcome:?} and not {expected:?}", shown()),
        }
    }
}

/// The diff fits, so that tolerance makes no difference.
fn check(before: &RawDocument, diff: RawDocumentBuf, expected: RawDocumentBuf) {
    check_both(before, &update(diff), [Some(expected.clone()), Some(expected)]);
}

fn text(document: &RawDocument) -> String {
    Document::try_from(document).map_or_else(|_| format!("{document:?}"), |document| document.to_string())
}

#[test]
fn a_field_is_deleted_or_set_in_its_place_or_put_to_the_end() {
    let before = rawdoc! { "_id": 1, "a": 1, "b": { "c": 2, "d": 3 }, "e": 4 };
    let apply = |diff: RawDocumentBuf, after: RawDocumentBuf| check(&before, diff, after);
    apply(rawdoc! {}, before.clone());
    apply(rawdoc! { "u": { "a": "x" } }, rawdoc! { "_id": 1, "a": "x", "b": { "c": 2, "d": 3 }, "e": 4 });
    apply(
        rawdoc! { "i": { "z": 1, "f": [] } },
        rawdoc! { "_id": 1, "a": 1, "b": { "c": 2, "d": 3 }, "e": 4, "z": 1, "f": [] },
    );
    apply(
        rawdoc! { "i": { "z": 1, "a": 9, "f": 2 } },
        rawdoc! { "_id": 1, "b": { "c": 2, "d": 3 }, "e": 4, "z": 1, "a": 9, "f": 2 },
    );
    apply(
        rawdoc! { "d": { "a": false, "b": false }, "u": { "e": { "x": 1 } }, "i": { "f": 5 } },
        rawdoc! { "_id": 1, "e": { "x": 1 }, "f": 5 },
    );
    apply(
        rawdoc! { "d": { "e": false }, "sb": { "d": { "c": false }, "i": { "z": 1 } } },
        rawdoc! { "_id": 1, "a": 1, "b": { "d": 3, "z": 1 } },
    );
    apply(
        rawdoc! { "sb": { "d": { "c": false, "d": false } } },
        rawdoc! { "_id": 1, "a": 1, "b": {}, "e": 4 },
    );
    apply(
        rawdoc! { "sb": { "i": { "c": 2 } } },
        rawdoc! { "_id": 1, "a": 1, "b": { "d": 3, "c": 2 }, "e": 4 },
    );
}

#[test]
fn a_name_may_be_anything() {
    let before =
        rawdoc! { "a.b": 1, "a": { "b": 2, "": { "0": 3 } }, "": { "": 4 }, "$c": 5, "s": { "u": 6 } };
    let diff = rawdoc! {
        "d": { "$c": false },
        "u": { "a.b": 9 },
        "sa": { "u": { "b": 8 }, "s": { "u": { "0": 7 } } },
        "s": { "i": { "": 6, "d": 1 } },
        "ss": { "u": { "u": 5 } },
    };
    let after = rawdoc! { "a.b": 9, "a": { "b": 8, "": { "0": 7 } }, "": { "": 6, "d": 1 }, "s": { "u": 5 } };
    check(&before, diff, after);
}

#[test]
fn an_array_is_cut_or_extended_and_changes_inside() {
    let before = rawdoc! { "l": [1, { "a": 2 }, [3], 4] };
    let apply = |diff: RawDocumentBuf, after: RawDocumentBuf| check(&before, rawdoc! { "sl": diff }, after);
    apply(rawdoc! { "a": true }, before.clone());
    apply(rawdoc! { "a": true, "l": 1 }, rawdoc! { "l": [1] });
    apply(rawdoc! { "a": true, "l": 0_i64 }, rawdoc! { "l": [] });
    apply(rawdoc! { "a": true, "l": 4 }, before.clone());
    apply(rawdoc! { "a": true, "u0": "x", "u3": {} }, rawdoc! { "l": ["x", { "a": 2 }, [3], {}] });
    apply(rawdoc! { "a": true, "u4": 5, "u5": 6 }, rawdoc! { "l": [1, { "a": 2 }, [3], 4, 5, 6] });
    apply(rawdoc! { "a": true, "u6": 7 }, rawdoc! { "l": [1, { "a": 2 }, [3], 4, null, null, 7] });
    apply(
        rawdoc! { "a": true, "s1": { "u": { "a": 9 } }, "s2": { "a": true, "l": 0 }, "u10": 8 },
        rawdoc! { "l": [1, { "a": 9 }, [], 4, null, null, null, null, null, null, 8] },
    );
    apply(rawdoc! { "a": true, "l": 2, "s1": { "i": { "b": 1 } } }, rawdoc! { "l": [1, { "a": 2, "b": 1 }] });
}

#[test]
fn what_does_not_fit_is_refused_or_passed_over() {
    let before = rawdoc! { "_id": 1, "b": { "c": 2 }, "l": [1, [2]], "n": null };
    let misfit = |diff: RawDocumentBuf, tolerated: RawDocumentBuf| {
        check_both(&before, &update(diff), [None, Some(tolerated)]);
    };
    misfit(rawdoc! { "d": { "z": false } }, before.clone());
    misfit(
        rawdoc! { "u": { "z": 1, "y": 2 }, "i": { "x": 3, "b": 4 } },
        rawdoc! { "_id": 1, "l": [1, [2]], "n": null, "z": 1, "y": 2, "x": 3, "b": 4 },
    );
    misfit(rawdoc! { "sz": { "i": { "a": 1 } } }, before.clone());
    misfit(rawdoc! { "sz": { "a": true, "u0": 1 } }, before.clone());
    misfit(rawdoc! { "sn": { "i": { "a": 1 } } }, before.clone());
    misfit(rawdoc! { "sb": { "a": true, "u0": 1 } }, before.clone());
    misfit(rawdoc! { "sl": { "u": { "0": 1 } } }, before.clone());
    misfit(rawdoc! { "sl": { "a": true, "l": 3 } }, before.clone());
    misfit(rawdoc! { "sl": { "a": true, "s0": { "i": { "a": 1 } } } }, before.clone());
    misfit(rawdoc! { "sl": { "a": true, "s2": { "i": { "a": 1 } } } }, before.clone());
    // Only the places that do not fit are passed over.
    misfit(
        rawdoc! { "d": { "z": false, "n": false }, "sb": { "d": { "z": false }, "u": { "c": 9 } } },
        rawdoc! { "_id": 1, "b": { "c": 9 }, "l": [1, [2]] },
    );
    misfit(
        rawdoc! { "sl": { "a": true, "l": 6, "s1": { "a": true, "l": 0 }, "s2": { "i": { "a": 1 } }, "u3": 4 } },
        rawdoc! { "_id": 1, "b": { "c": 2 }, "l": [1, [], null, 4], "n": null },
    );
}

#[test]
fn an_update_of_an_unknown_form_is_refused() {
    let before = rawdoc! { "a": { "b": { "c": 1 } }, "l": [[1], 2] };
    let unknown = |update: &RawDocument| {
        check_both(&before, update, [None, None]);
        assert!(!is_known_update(update), "{}", text(update));
    };
    for whole in [
        rawdoc! {},
        rawdoc! { "$v": 2 },
        rawdoc! { "diff": {} },
        rawdoc! { "$v": 1, "$set": { "a": 1 } },
        rawdoc! { "$v": 3, "diff": { "u": { "a": 1 } } },
        rawdoc! { "$v": "2", "diff": { "u": { "a": 1 } } },
        rawdoc! { "$v": 2, "diff": [] },
        rawdoc! { "$v": 2, "diff": { "u": { "a": 1 } }, "more": 1 },
        rawdoc! { "updatedFields": { "a": 1 }, "removedFields": [] },
    ] {
        unknown(&whole);
    }
    for diff in [
        rawdoc! { "b": { "a": { "o": 1 } } },
        rawdoc! { "": { "a": 1 } },
        rawdoc! { "ua": 1 },
        rawdoc! { "u": [1] },
        rawdoc! { "d": 1 },
        rawdoc! { "sa": 1 },
        rawdoc! { "sa": { "x": {} } },
        rawdoc! { "sa": { "sb": { "b": { "c": 1 } } } },
        rawdoc! { "u": { "a": 1 }, "i": { "a": 2 } },
        rawdoc! { "d": { "a": false }, "sa": { "u": { "b": 1 } } },
        rawdoc! { "u": { "a": 1, "a": 2 } },
        rawdoc! { "a": true, "u0": 1 },
        rawdoc! { "sl": { "a": false, "u0": 1 } },
        rawdoc! { "sl": { "a": 1, "u0": 1 } },
        rawdoc! { "sl": { "a": true, "l": -1 } },
        rawdoc! { "sl": { "a": true, "l": 1.0 } },
        rawdoc! { "sl": { "a": true, "l": 1, "u1": 1 } },
        rawdoc! { "sl": { "a": true, "u": 1 } },
        rawdoc! { "sl": { "a": true, "u00": 1 } },
        rawdoc! { "sl": { "a": true, "u-1": 1 } },
        rawdoc! { "sl": { "a": true, "u+1": 1 } },
        rawdoc! { "sl": { "a": true, "ux": 1 } },
        rawdoc! { "sl": { "a": true, "u99999999999999999999": 1 } },
        rawdoc! { "sl": { "a": true, "d": { "0": false } } },
        rawdoc! { "sl": { "a": true, "u0": 1, "s0": { "a": true, "l": 0 } } },
        rawdoc! { "sl": { "a": true, "s0": 1 } },
    ] {
        unknown(&update(diff));
    }
}

#[test]
fn levels_and_sizes_have_a_bound() {
    let nested = |value: i32| (0..190).fold(rawdoc! { "a": value }, |inner, _| rawdoc! { "a": inner });
    let diff =
        |levels: u32| (0..levels).fold(rawdoc! { "u": { "a": 2 } }, |inner, _| rawdoc! { "sa": inner });
    check(&nested(1), diff(190), nested(2));
    let deeper = update(diff(1000));
    assert_eq!(apply_update(rawdoc! {}.as_bytes(), &deeper).unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(is_known_update(&update(diff(190))) && !is_known_update(&deeper));

    // No memory is taken for an index that no server would give.
    let far = update(rawdoc! { "sl": { "a": true, "u4000000000": 1 } });
    let refused = apply_update(rawdoc! { "l": [1] }.as_bytes(), &far).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);

    let before = rawdoc! { "text": "x".repeat(1000) };
    let large = update(rawdoc! { "i": { "large": "x".repeat(DOCUMENT_BYTES_MAX - 20) } });
    let refused = apply_update(before.as_bytes(), &large).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    let tolerated = apply_update_tolerantly(before.as_bytes(), &large).unwrap();
    assert!(tolerated.len() > DOCUMENT_BYTES_MAX, "it may become smaller again");
}

/// A document of these elements: type, name and value.
fn raw(elements: &[(u8, &[u8], &[u8])]) -> RawDocumentBuf {
    let mut output = Output { bytes: Vec::new(), misfits: Misfits::Refused };
    let start = output.begin();
    for (kind, name, value) in elements {
        output.element(*kind, name, value).unwrap();
    }
    output.end(start).unwrap();
    RawDocumentBuf::from_bytes(output.bytes).unwrap()
}

#[test]
fn what_is_not_touched_stays_byte_for_byte() {
    let odd: [(u8, &[u8], &[u8]); 5] = [
        (0x06, b"undefined", b""),
        (0x0e, b"symbol", b"\x02\0\0\0s\0"),
        (0x02, b"not \xff utf-8 \xfe", b"\x03\0\0\0\xc3\x28\0"),
        (0x04, b"list", b"\x0a\0\0\0\x0aodd\0\0"),
        (0x0a, b"twice", b""),
    ];
    let (one, two): (&[u8], &[u8]) = (&[1, 0, 0, 0], &[2, 0, 0, 0]);
    let with = |before: &[(u8, &[u8], &[u8])], after: &[(u8, &[u8], &[u8])]| {
        raw(&[before, odd.as_slice(), after].concat())
    };
    let before = with(&[(0x10, b"twice", one), (0x10, b"a", one)], &[(0x10, b"a", one)]);
    let diff = |section: &[u8], name: &[u8]| raw(&[(0x03, section, raw(&[(0x10, name, two)]).as_bytes())]);
    // Of two fields with one name, the first is meant.
    let after = with(&[(0x10, b"twice", one), (0x10, b"a", two)], &[(0x10, b"a", one)]);
    check(&before, diff(b"u", b"a"), after);
    check(&before, diff(b"d", b"twice"), with(&[(0x10, b"a", one)], &[(0x10, b"a", one)]));
    let after = with(&[(0x10, b"twice", one)], &[(0x10, b"a", one), (0x10, b"a", two)]);
    check(&before, diff(b"i", b"a"), after);
    let after = with(&[(0x10, b"twice", one), (0x10, b"a", one)], &[(0x10, b"a", one), (0x10, b"\xff", two)]);
    check(&before, diff(b"i", b"\xff"), after);
}

#[test]
fn a_document_that_is_no_document_is_refused() {
    let update = update(rawdoc! { "i": { "a": 1 } });
    for bad in [&[][..], &[5, 0, 0, 0], &[6, 0, 0, 0, 0], &[7, 0, 0, 0, 0x10, 0, 0], &[5, 0, 0, 0, 1]] {
        for apply in [apply_update, apply_update_tolerantly] {
            assert_eq!(apply(bad, &update).unwrap_err().kind(), ErrorKind::Corrupt, "{bad:?}");
        }
    }
}

proptest! {
    #[test]
    fn any_change_is_done_as_the_model_logs_it(
        shape in proptest::collection::vec(any::<u8>(), 0..200),
        changes in proptest::collection::vec(any::<u8>(), 0..200),
        is_alike in any::<bool>(),
    ) {
        let before = Choices::new(shape).document(4);
        let mut choices = Choices::new(changes);
        let after = if is_alike { choices.changed_document(&before) } else { choices.document(4) };
        let diff = choices.document_diff(&before, &after);
        let update = update(diff.try_into().unwrap());
        let (before_bytes, after_bytes) = (before.to_vec().unwrap(), after.to_vec().unwrap());
        let shown = || format!("{before} + {}", text(&update));
        prop_assert!(is_known_update(&update));
        let patched = apply_update(&before_bytes, &update).unwrap();
        prop_assert!(patched == after_bytes, "{} is not {}", shown(), after);
        for base in [before_bytes, after_bytes.clone()] {
            let patched = apply_update_tolerantly(&base, &update).unwrap();
            prop_assert!(patched == after_bytes, "{} or again is not {}", shown(), after);
        }
    }

    #[test]
    fn any_bytes_are_patched_without_a_panic(
        document in proptest::collection::vec(any::<u8>(), 0..60),
        diff in proptest::collection::vec(any::<u8>(), 0..60),
        section in proptest::sample::select(vec!["", "d", "u", "i", "s", "sa"]),
    ) {
        let framed = |inner: &[u8]| {
            let length = i32::try_from(inner.len() + 5).unwrap();
            [&length.to_le_bytes()[..], inner, &[0]].concat()
        };
        let mut diff = framed(&diff);
        if !section.is_empty() {
            diff = raw(&[(DOCUMENT, section.as_bytes(), &diff)]).into_bytes();
        }
        let update = raw(&[(0x10, b"$v", &[2, 0, 0, 0]), (DOCUMENT, b"diff", &diff)]);
        let document = framed(&document);
        let outcomes = [apply_update(&document, &update), apply_update_tolerantly(&document, &update)];
        prop_assert!(is_known_update(&update) || outcomes.iter().all(Result::is_err));
    }
}
