//! Documents and `_id`s of every type and of the sizes and shapes at the edges.

use bson::{RawDocumentBuf, rawdoc};

use super::raw::{Raw, binary, code_with_scope, string};

/// The largest document a server takes.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Levels of nesting.
const DEPTH: usize = 100;

/// NaNs with several payloads, zeros, infinities, the smallest and the largest.
const DOUBLES: [u64; 12] = [
    0x7ff8_0000_0000_0000,
    0xfff8_0000_0000_0000,
    0x7ff0_0000_0000_0001, // signalling
    0x7fff_ffff_ffff_ffff,
    0xfff8_dead_beef_cafe,
    0x8000_0000_0000_0000, // -0.0
    0x0000_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x0000_0000_0000_0001, // smallest subnormal
    0x7fef_ffff_ffff_ffff,
    0xffef_ffff_ffff_ffff,
];

/// 128-bit decimals, high word first: infinities, NaNs (one with a payload, one signalling), zeros of three
/// exponents, the largest, the smallest, one that is not canonical.
const DECIMALS: [(u64, u64); 12] = [
    (0x7800_0000_0000_0000, 0),
    (0xf800_0000_0000_0000, 0),
    (0x7c00_0000_0000_0000, 0),
    (0x7c00_0000_0000_0000, 0xbeef),
    (0x7e00_0000_0000_0000, 0),
    (0x3040_0000_0000_0000, 0),
    (0xb040_0000_0000_0000, 0),
    (0x5ffe_0000_0000_0000, 0),
    (0x5fff_ed09_bead_87c0, 0x378d_8e63_ffff_ffff),
    (0x0000_0000_0000_0000, 1),
    (0x8000_0000_0000_0000, 1),
    (0x6c10_0000_0000_0000, 7),
];

const BINARY_SUBTYPES: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x80, 0xff];

fn decimal((high, low): (u64, u64)) -> Vec<u8> {
    [low.to_le_bytes(), high.to_le_bytes()].concat()
}

/// Every type BSON has, the deprecated ones included, with values at their edges.
pub(super) fn every_type() -> Vec<RawDocumentBuf> {
    let (text, empty) = (string(b"text"), string(b""));
    let pointer = [&string(b"db.collection")[..], &[7; 12]].concat();
    let scope = || Raw::default().string(b"x", b"y");
    let mut values: Vec<(u8, Vec<u8>)> = vec![
        (0x02, text.clone()),
        (0x02, empty.clone()),
        (0x02, string(b"nul \0 inside")),
        (0x02, string("Grüße, 世界 😀 e\u{301}".as_bytes())),
        (0x02, string(&[0xff, 0xfe, 0x80, b'x'])), // not UTF-8
        (0x03, Raw::default().bytes()),
        (0x04, Raw::default().bytes()),
        (0x04, Raw::default().value(b"7", 0x0a, &[]).value(b"x", 0x08, &[1]).bytes()), // odd array keys
        (0x06, vec![]),
        (0x07, vec![0; 12]),
        (0x07, vec![0xff; 12]),
        (0x08, vec![0]),
        (0x08, vec![1]),
        (0x0a, vec![]),
        (0x0b, b"^a.*b$\0imsx\0".to_vec()),
        (0x0b, b"\0\0".to_vec()),
        (0x0c, pointer),
        (0x0d, text.clone()),
        (0x0e, text),
        (0x0e, empty),
        (0x0f, code_with_scope(b"return x", scope())),
        (0x0f, code_with_scope(b"", Raw::default())),
        (0x7f, vec![]),
        (0xff, vec![]),
    ];
    for number in [i64::MIN, -1, 0, 1, 1 << 53, i64::MAX] {
        values.push((0x09, number.to_le_bytes().to_vec()));
        values.push((0x12, number.to_le_bytes().to_vec()));
        values.push((0x11, number.to_le_bytes().to_vec()));
    }
    values.extend([i32::MIN, -1, 0, i32::MAX].map(|number| (0x10, number.to_le_bytes().to_vec())));
    values.extend(DOUBLES.map(|bits| (0x01, bits.to_le_bytes().to_vec())));
    values.extend(DECIMALS.map(|number| (0x13, decimal(number))));
    values.extend(BINARY_SUBTYPES.map(|subtype| (0x05, binary(subtype, &[9; 16]))));
    values.extend(BINARY_SUBTYPES.map(|subtype| (0x05, binary(subtype, &[]))));
    let numbered = (0..).zip(values);
    numbered.flat_map(|(n, (kind, value))| [placed(n, kind, &value), at_the_top(n, kind, &value)]).collect()
}

/// The value inside a document and an array.
fn placed(n: i32, kind: u8, value: &[u8]) -> RawDocumentBuf {
    let inside = Raw::default().value(b"v", kind, value).value(b"", kind, value);
    let list = Raw::default().value(b"0", kind, value).value(b"1", kind, value);
    Raw::with_id(n).document(b"in", inside).value(b"list", 0x04, &list.bytes()).finish()
}

fn at_the_top(n: i32, kind: u8, value: &[u8]) -> RawDocumentBuf {
    Raw::with_id(10_000 + n).value(b"v", kind, value).finish()
}

/// Shapes that a map cannot hold, names that mean something elsewhere, deep and large ones.
pub(super) fn every_shape() -> Vec<RawDocumentBuf> {
    let one = 1_i32.to_le_bytes();
    let mut deep = Raw::default().string(b"end", b"x");
    for _ in 0..DEPTH - 2 {
        deep = Raw::default().document(b"d", deep);
    }
    let many = (0..5000).fold(Raw::with_id(6), |raw, n: i32| raw.value(n.to_string().as_bytes(), 0x0a, &[]));
    vec![
        Raw::with_id(0).value(b"a", 0x10, &one).value(b"a", 0x0a, &[]).string(b"a", b"third").finish(),
        Raw::with_id(1).value(b"", 0x10, &one).document(b"", Raw::default().value(b"", 0x0a, &[])).finish(),
        Raw::with_id(2)
            .string(b"a.b", b"dotted")
            .document(b"d", Raw::default().string(b"$set", b"x"))
            .finish(),
        Raw::with_id(3)
            .document(b"in", Raw::default().value(b"$ref", 0x10, &one).value(b"a.b", 0x0a, &[]))
            .finish(),
        Raw::with_id(4)
            .value(b"0", 0x10, &one)
            .value(b"__proto__", 0x0a, &[])
            .value(b"\xff\xfe", 0x0a, &[])
            .finish(),
        Raw::with_id(5).document(b"d", deep).finish(),
        many.finish(),
        Raw::with_id(7).finish(),
        rawdoc! { "last": 1, "_id": 8 }, // the server puts the _id first
    ]
}

/// One document of the largest size, to the byte, and one a little smaller that also needs the way around for a zero
/// timestamp.
pub(super) fn largest() -> [RawDocumentBuf; 2] {
    let of = |id, bytes: usize, raw: Raw| {
        let overhead = Raw::with_id(id).bytes().len() + raw.len() + b"\x05pad\0".len() + 5;
        let pad: Vec<u8> = (0..bytes - overhead).map(|n| u8::try_from(n * 31 % 251).unwrap()).collect();
        Raw::with_id(id).append(raw).binary(b"pad", 0, &pad).finish()
    };
    let zero_timestamp = Raw::default().value(b"at", 0x11, &[0; 8]);
    [of(1, DOCUMENT_BYTES_MAX, Raw::default()), of(2, DOCUMENT_BYTES_MAX - 8192, zero_timestamp)]
}

/// Documents whose top level has `Timestamp(0, 0)`, once, twice, and beside one that is not zero.
pub(super) fn zero_timestamps() -> Vec<RawDocumentBuf> {
    let zero = [0; 8];
    let (list, inside) = (Raw::default().value(b"0", 0x11, &zero), Raw::default().value(b"t", 0x11, &zero));
    vec![
        Raw::with_id(1).value(b"t", 0x11, &zero).finish(),
        Raw::with_id(2).value(b"t", 0x11, &zero).value(b"u", 0x11, &zero).string(b"$v", b"x").finish(),
        Raw::with_id(3)
            .value(b"t", 0x11, &zero)
            .document(b"in", inside)
            .value(b"l", 0x04, &list.bytes())
            .finish(),
        Raw::with_id(4).value(b"t", 0x11, &[1, 0, 0, 0, 0, 0, 0, 0]).value(b"", 0x11, &zero).finish(),
        Raw::default().value(b"_id", 0x11, &zero).finish(),
        Raw::default().value(b"_id", 0x11, &[2; 8]).value(b"t", 0x11, &zero).finish(),
    ]
}

/// Documents whose `_id`s are of every type a server takes, at the edges of each.
#[must_use]
pub fn every_id() -> Vec<RawDocumentBuf> {
    let pointer = [&string(b"db.collection")[..], &[7; 12]].concat();
    let document = Raw::default().string(b"a", b"b").value(b"a", 0x0a, &[]);
    let list = Raw::default().value(b"0", 0x10, &[1, 0, 0, 0]);
    let inner = Raw::default().value(b"list", 0x04, &list.bytes());
    let mut values: Vec<(u8, Vec<u8>)> = vec![
        (0x02, string(b"")),
        (0x02, string(b"text")),
        (0x02, string("\u{10ffff}".as_bytes())),
        (0x02, string(&[b'x'; 3000])), // too long to bound a range
        (0x03, Raw::default().bytes()),
        (0x03, document.bytes()),
        (0x03, inner.bytes()),
        (0x07, vec![0; 12]),
        (0x07, vec![0xff; 12]),
        (0x08, vec![0]),
        (0x08, vec![1]),
        (0x0a, vec![]),
        (0x0c, pointer),
        (0x0d, string(b"code")),
        (0x0e, string(b"symbol")),
        (0x0f, code_with_scope(b"return x", Raw::default().string(b"x", b"y"))),
        (0x11, vec![1; 8]),
        (0x7f, vec![]),
        (0xff, vec![]),
        (0x01, 0xfff8_dead_beef_cafe_u64.to_le_bytes().to_vec()), // NaN
        (0x01, (-0.0_f64).to_le_bytes().to_vec()),
        (0x01, f64::INFINITY.to_le_bytes().to_vec()),
        (0x01, f64::NEG_INFINITY.to_le_bytes().to_vec()),
        (0x01, 0.5_f64.to_le_bytes().to_vec()),
        (0x13, decimal((0x3040_0000_0000_0000, 17))),
        (0x13, decimal((0x5fff_ed09_bead_87c0, 0x378d_8e63_ffff_ffff))),
    ];
    values.extend([i64::MIN, -5, 1 << 53, i64::MAX].map(|number| (0x12, number.to_le_bytes().to_vec())));
    values.extend([i64::MIN, -5, i64::MAX].map(|millis| (0x09, millis.to_le_bytes().to_vec())));
    values.extend([i32::MIN, 1, 2, i32::MAX].map(|number| (0x10, number.to_le_bytes().to_vec())));
    values.extend(BINARY_SUBTYPES.map(|subtype| (0x05, binary(subtype, &[9; 16]))));
    let all = (0_i32..).zip(values);
    all.map(|(n, (kind, value))| {
        Raw::default().value(b"_id", kind, &value).value(b"n", 0x10, &n.to_le_bytes()).finish()
    })
    .collect()
}
