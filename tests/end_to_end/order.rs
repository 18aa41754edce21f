//! Keys of `_id`s are ordered as the real server orders them, and equal exactly where it takes two for one.

use backup_core::bson::{IdKey, IdValue};
use backup_testkit::corpus;
use bson::{Decimal128, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use futures_util::TryStreamExt;
use mongodb::Database;

use crate::fixture::Fixture;
use crate::numbers::{Numbers, seeds};

/// Generated `_id`s of one collection.
const IDS: u32 = 2000;
/// Levels of documents in them.
const LEVELS: u32 = 3;
/// Of so many `_id`s at most the server may not be able to tell that they are there: it does not read its own key of
/// some decimals and symbols, and says something else instead.
const UNREADABLE_MAX: usize = 400;
/// The server's code for an `_id` that is there already.
const DUPLICATE_KEY: i32 = 11000;

/// Where doubles and the server's index keys change their shape.
const DOUBLES: [f64; 20] = [
    0.0,
    5e-324,
    1e-310,
    f64::MIN_POSITIVE,
    1e-100,
    1.727_233_711_018_889e-77, // 2^-255
    0.1,
    0.5,
    1.0,
    1.5,
    127.125,
    123_456_789.125,
    1e15,
    9_007_199_254_740_992.0,     // 2^53
    36_028_797_018_963_968.0,    // 2^55
    9_223_372_036_854_775_808.0, // 2^63
    1e22,
    1e100,
    f64::MAX,
    f64::INFINITY,
];
const INTEGERS: [i64; 10] = [0, 127, 255, 1 << 16, 1 << 31, 1 << 53, 1 << 55, 1 << 62, i64::MAX, i64::MIN];
/// Where decimals leave the range of doubles, and their own ends.
const EXPONENTS: [i32; 12] = [-6176, -400, -358, -330, -324, -308, 0, 290, 308, 309, 400, 6111];

/// A type and a value in bytes.
type Value = (u8, Vec<u8>);

pub(crate) fn ids_sort_as_the_server_sorts_them(fixture: &Fixture) {
    for seed in seeds(5) {
        let numbers = Numbers::new(seed);
        let mut documents = corpus::every_id();
        documents.extend(odd().iter().map(with_id));
        documents.extend((0..IDS).map(|_| with_id(&id(&numbers))));
        let database = fixture.database("order");
        fixture.run(async {
            let clustered =
                doc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true } };
            database.run_command(clustered).await.unwrap();
            for name in ["indexed", "clustered"] {
                agrees(&database, name, &documents, seed).await;
            }
        });
    }
}

async fn agrees(database: &Database, name: &str, documents: &[RawDocumentBuf], seed: u64) {
    let (refused, untold) = insert(database, name, documents).await;
    let sorted = database.collection::<RawDocumentBuf>(name).find(doc! {}).sort(doc! { "_id": 1 }).await;
    let sorted: Vec<RawDocumentBuf> = sorted.unwrap().try_collect().await.unwrap();
    eprintln!("{name}, seed {seed}: {} ids, {} were there already", sorted.len(), refused.len());
    assert_eq!(sorted.len() + refused.len() + untold, documents.len(), "{name}, seed {seed}");
    assert!(sorted.len() > 500 && refused.len() > 100, "{name}, seed {seed}: nothing is shown");
    let keys: Vec<IdKey> = sorted.iter().map(key).collect();
    for (pair, found) in keys.windows(2).zip(sorted.windows(2)) {
        assert!(pair[0] < pair[1], "{name}, seed {seed}: {:?} and {:?}", found[0], found[1]);
    }
    for document in refused {
        assert!(keys.binary_search(&key(document)).is_ok(), "{name}, seed {seed}: {document:?}");
    }
}

fn key(document: &RawDocumentBuf) -> IdKey {
    IdKey::new(IdValue::of_document(document.as_bytes()).unwrap().unwrap()).unwrap()
}

/// Inserts what the server takes; gives the documents whose `_id`s it had already, and how many others it refused.
async fn insert<'a>(
    database: &Database,
    name: &str,
    documents: &'a [RawDocumentBuf],
) -> (Vec<&'a RawDocumentBuf>, usize) {
    let mut array = RawArrayBuf::new();
    for document in documents {
        array.push(document.clone());
    }
    let command = rawdoc! { "insert": name, "ordered": false, "documents": array };
    let reply = database.run_raw_command(command).await.unwrap();
    let (mut refused, mut unreadable) = (Vec::new(), 0);
    for error in reply.get_array("writeErrors").into_iter().flatten() {
        let error = error.as_document().unwrap();
        let document = &documents[usize::try_from(error.get_i32("index").unwrap()).unwrap()];
        match error.get_i32("code").unwrap() {
            DUPLICATE_KEY => refused.push(document),
            _ => unreadable += 1,
        }
    }
    assert!(unreadable <= UNREADABLE_MAX, "{unreadable} of {} were refused otherwise", documents.len());
    (refused, unreadable)
}

fn with_id(value: &Value) -> RawDocumentBuf {
    RawDocumentBuf::from_bytes(fields(&[("_id", value.clone())])).unwrap()
}

fn fields(all: &[(&str, Value)]) -> Vec<u8> {
    let elements =
        all.iter().map(|(name, (kind, value))| [&[*kind][..], name.as_bytes(), &[0], value].concat());
    let elements = elements.collect::<Vec<_>>().concat();
    let length = i32::try_from(elements.len() + 5).unwrap();
    [&length.to_le_bytes()[..], &elements, &[0]].concat()
}

fn string(text: &str) -> Vec<u8> {
    let length = i32::try_from(text.len() + 1).unwrap();
    [&length.to_le_bytes()[..], text.as_bytes(), &[0]].concat()
}

/// What the server's index and its other comparisons see differently: names in arrays, and zeros in names of pointers.
fn odd() -> Vec<Value> {
    let one = || (0x10, 1_i32.to_le_bytes().to_vec());
    let list = |names: [&str; 2]| (0x04, fields(&[(names[0], one()), (names[1], one())]));
    let lists = [["0", "1"], ["7", "x"], ["b", "a"]].map(list);
    let pointers = ["a", "a\0b", "a\0c", "ab"].map(|name| (0x0c, [string(name), vec![7; 12]].concat()));
    lists.into_iter().chain(pointers).map(|value| (0x03, fields(&[("odd", value)]))).collect()
}

/// A value that may be an `_id`.
fn id(numbers: &Numbers) -> Value {
    match value(numbers, LEVELS) {
        // These may not be one themselves: arrays, undefined, regular expressions.
        inner @ (0x04 | 0x06 | 0x0b, _) => (0x03, fields(&[("a", inner)])),
        value => value,
    }
}

fn value(numbers: &Numbers, levels: u32) -> Value {
    let byte = || u8::try_from(numbers.below(4) * 85).unwrap();
    let bytes = |least: u64| (0..least + numbers.below(3)).map(|_| byte()).collect::<Vec<u8>>();
    match numbers.below(if levels == 0 { 18 } else { 24 }) {
        0..=2 => (0x01, double(numbers).to_le_bytes().to_vec()),
        3..=6 => (0x13, decimal(numbers).to_le_bytes().to_vec()),
        7 => (0x10, i32::try_from(numbers.below(7)).unwrap().to_le_bytes().to_vec()),
        8 | 9 => (0x12, integer(numbers).to_le_bytes().to_vec()),
        10 | 11 => ([0x02, 0x0e][index(numbers, 2)], string(&text(numbers))),
        12 => (0x0d, string(&text(numbers))),
        13 => binary(byte() % 2, &bytes([0, 0, 253][index(numbers, 3)])),
        14 => (0x07, [vec![byte(); 11], vec![byte()]].concat()),
        15 => (0x08, vec![byte() % 2]),
        16 => ([0x09, 0x11][index(numbers, 2)], integer(numbers).to_le_bytes().to_vec()),
        17 => [(0x0a, vec![]), (0x06, vec![]), (0x0b, regex(numbers))][index(numbers, 3)].clone(),
        18 => (0x0f, code_with_scope(numbers, levels - 1)),
        19 | 20 => (0x04, nested(numbers, ["0", "1", "2"], levels - 1)),
        _ => {
            let names = [0; 3].map(|_| ["", "a", "aa", "b"][index(numbers, 4)]);
            (0x03, nested(numbers, names, levels - 1))
        }
    }
}

fn index(numbers: &Numbers, end: u64) -> usize {
    usize::try_from(numbers.below(end)).unwrap()
}

fn nested(numbers: &Numbers, names: [&str; 3], levels: u32) -> Vec<u8> {
    let all: Vec<_> = names[..index(numbers, 4)].iter().map(|name| (*name, value(numbers, levels))).collect();
    fields(&all)
}

fn code_with_scope(numbers: &Numbers, levels: u32) -> Vec<u8> {
    let inner = [string(&text(numbers)), nested(numbers, ["a", "b", "c"], levels)].concat();
    let length = i32::try_from(inner.len() + 4).unwrap();
    [&length.to_le_bytes()[..], &inner].concat()
}

fn binary(subtype: u8, bytes: &[u8]) -> Value {
    let length = i32::try_from(bytes.len()).unwrap();
    (0x05, [&length.to_le_bytes()[..], &[subtype], bytes].concat())
}

fn text(numbers: &Numbers) -> String {
    let parts = ["a", "b", "aa", "\0", "\u{1}", "é", "\u{10ffff}"];
    (0..numbers.below(4)).map(|_| parts[index(numbers, 7)]).collect()
}

fn regex(numbers: &Numbers) -> Vec<u8> {
    let (pattern, flags) = (["", "a", "ab", "b"][index(numbers, 4)], ["", "i", "im"][index(numbers, 3)]);
    [pattern.as_bytes(), &[0], flags.as_bytes(), &[0]].concat()
}

fn integer(numbers: &Numbers) -> i64 {
    let near = INTEGERS[index(numbers, 10)].saturating_add(i64::try_from(numbers.below(5)).unwrap() - 2);
    if numbers.below(2) == 0 { near } else { near.saturating_neg() }
}

/// One of the doubles or one close to it: behind infinity those are NaNs.
fn double(numbers: &Numbers) -> f64 {
    let near = DOUBLES[index(numbers, 20)].to_bits().saturating_sub(2) + numbers.below(5);
    let sign = numbers.below(2) << 63;
    f64::from_bits(near | sign)
}

/// The bits of a decimal: a double in up to 34 digits, an integer with digits behind the point, or one at an end of
/// some range; most of them are moved by a little.
fn decimal(numbers: &Numbers) -> u128 {
    const COEFFICIENT: u128 = (1 << 113) - 1;
    let of =
        |coefficient: u128, exponent: i32| (u128::try_from(exponent + 6176).unwrap() << 113) | coefficient;
    let bits = match numbers.below(5) {
        0..=2 => {
            let digits = [0, 5, 14, 15, 16, 33][index(numbers, 6)];
            let text = format!("{:.*e}", digits, double(numbers).abs());
            u128::from_le_bytes(text.parse::<Decimal128>().unwrap().bytes())
        }
        3 => {
            let places = i32::try_from(numbers.below(4)).unwrap();
            of(u128::from(integer(numbers).unsigned_abs()) * 10_u128.pow(places.unsigned_abs()), -places)
        }
        _ => of([1, 10_u128.pow(33), 10_u128.pow(34) - 3][index(numbers, 3)], EXPONENTS[index(numbers, 12)]),
    };
    // Never beyond 34 digits, and not where infinities and NaNs are.
    let may_move = (1..10_u128.pow(34) - 2).contains(&(bits & COEFFICIENT)) && bits >> 122 < 0x18;
    let moved = if may_move { bits + u128::from(numbers.below(3)) } else { bits };
    moved | (u128::from(numbers.below(2)) << 127)
}
