//! Documents and their `_id`s: of every type, with names of fields that look like paths, operators and indexes.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, Document, Timestamp, doc};

use super::draw::Draw;

/// `_id`s of a collection: so few that they come again and again.
const IDS: i32 = 36;
/// An index that expires after an hour has such a document deleted at once; one that expires after decades keeps it.
const PAST_MILLIS: i64 = 1_000_000_000_000;
const FUTURE_MILLIS: i64 = 4_000_000_000_000;
const WORDS: [&str; 7] = ["ash", "birch", "Ära", "elm", "oak", "x.y", ""];

/// One field.
pub(super) fn one(name: &str, value: impl Into<Bson>) -> Document {
    let mut document = Document::new();
    document.insert(name, value);
    document
}

impl Draw {
    /// An `_id` as collections of this name have them.
    pub(super) fn id(&self, collection: &str) -> Bson {
        let number = self.int(IDS);
        match collection {
            "texts" => format!("Id {number}").into(),
            "objects" => ObjectId::from_bytes([u8::try_from(number).unwrap(); 12]).into(),
            "composed" if number % 2 == 0 => doc! { "a": number, "b": { "c": number % 3 } }.into(),
            "composed" => doc! { "b": { "c": number % 3 }, "a": number }.into(),
            "mixed" => mixed_id(number),
            _ => number.into(),
        }
    }

    /// A document with some of the fields that updates change, in an order of its own.
    pub(super) fn document(&self, id: Bson) -> Document {
        let mut document = one("_id", id);
        let first = self.int(Self::PARTS);
        for number in first..first + Self::PARTS {
            if self.chance(65) {
                document.extend(self.part(number % Self::PARTS));
            }
        }
        document
    }

    const PARTS: i32 = 15;

    fn part(&self, number: i32) -> Document {
        let some = self.int(20);
        match number {
            0 => doc! { "n": some },
            1 => doc! { "amount": self.number() },
            2 => doc! { "name": self.word() },
            3 => doc! { "tags": [self.word(), self.word()] },
            4 => doc! { "list": (0..self.int(6)).map(|_| self.int(20)).collect::<Vec<_>>() },
            5 => doc! { "rows": (0..self.int(5)).map(|_| self.row()).collect::<Vec<_>>() },
            6 if some < 5 => doc! { "m": { "a": { "b": some }, "a.b": some, "0": [some] } },
            6 => doc! { "m": { "a": some, "b": { "c": some }, "12": some, "0": [some, 1] } },
            7 => doc! { "mixed": self.value() },
            8 => doc! { "at": self.date() },
            9 => doc! { "flags": some },
            10 => doc! { "place": { "type": "Point", "coordinates": [some, some + 1] } },
            11 => doc! { "dot": { "ted": some }, "dot.ted": some },
            12 => doc! { "0": some, "12": { "0": some, "1": [some] }, "$cash": some },
            13 => doc! { "serial": self.int(10_000) },
            _ => doc! { "text": "x".repeat(usize::try_from(some * some).unwrap()) },
        }
    }

    /// An element of `rows`.
    pub(super) fn row(&self) -> Document {
        doc! { "k": self.int(4), "v": self.int(20), "tags": [self.word()] }
    }

    pub(super) fn word(&self) -> &'static str {
        self.of(&WORDS)
    }

    /// A date long past, or far to come.
    pub(super) fn date(&self) -> DateTime {
        let millis = if self.chance(50) { PAST_MILLIS } else { FUTURE_MILLIS };
        DateTime::from_millis(millis + i64::from(self.int(1000)))
    }

    /// A number of any type.
    pub(super) fn number(&self) -> Bson {
        let number = self.int(40);
        match self.int(4) {
            0 => number.into(),
            1 => i64::from(number).into(),
            2 => (f64::from(number) / 8.0).into(),
            _ => decimal(&format!("{number}.50")),
        }
    }

    /// A value of any shape.
    pub(super) fn value(&self) -> Bson {
        let some = self.int(20);
        match self.int(8) {
            0 => self.number(),
            1 => self.word().into(),
            2 => Bson::Null,
            3 => Bson::Array(vec![some.into(), self.word().into(), doc! { "0": some }.into()]),
            4 => Bson::Array(Vec::new()),
            5 => doc! { "0": some, "x": self.word(), "2": { "1": some } }.into(),
            6 => Document::new().into(),
            _ => doc! { "x": [some, { "y": some }], "1": true }.into(),
        }
    }
}

fn decimal(text: &str) -> Bson {
    text.parse::<Decimal128>().unwrap().into()
}

/// Numbers that are equal as `_id`s, though not as bytes, and one of every other type.
fn mixed_id(number: i32) -> Bson {
    let value = number / 4;
    match (number, number % 4) {
        (0..24, 0) => value.into(),
        (0..24, 1) => i64::from(value).into(),
        (0..24, 2) => f64::from(value).into(),
        (0..24, _) => decimal(&format!("{value}.0")),
        (24, _) => Bson::Null,
        (25, _) => true.into(),
        (26, _) => DateTime::from_millis(1_700_000_000_000).into(),
        (27, _) => Binary { subtype: BinarySubtype::Generic, bytes: vec![0, 1, 2] }.into(),
        (28, _) => Timestamp { time: 7, increment: 9 }.into(),
        (29, _) => Bson::MinKey,
        (30, _) => Bson::MaxKey,
        (31, _) => "text".into(),
        _ => (f64::from(number) + 0.5).into(),
    }
}
