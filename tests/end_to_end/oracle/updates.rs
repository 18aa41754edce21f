//! Updates by every operator, of fields, arrays and elements of arrays. Many do not fit the document they meet; the
//! server refuses those.

use bson::{Bson, Document, doc};

use super::documents::one;
use super::draw::Draw;

/// An update of one document or of many.
pub(super) struct Update {
    /// What those documents have, besides.
    query: Document,
    /// Operators, or a pipeline.
    change: Bson,
    array_filters: Vec<Document>,
}

/// Set to anything and unset.
const PATHS: [&str; 23] = [
    "m",
    "m.a",
    "m.a.b",
    "m.b",
    "m.b.c",
    "m.0",
    "m.12",
    "m.new.deep",
    "rows.0.v",
    "rows.1",
    "rows.2.tags.0",
    "list.0",
    "list.3",
    "list.7",
    "mixed",
    "mixed.0",
    "mixed.2",
    "mixed.x",
    "dot.ted",
    "dot",
    "0",
    "12.0",
    "12",
];

impl Update {
    fn of(change: impl Into<Bson>) -> Self {
        Self { query: Document::new(), change: change.into(), array_filters: Vec::new() }
    }

    fn of_those(self, query: Document) -> Self {
        Self { query, ..self }
    }

    fn filtering(self, array_filters: Vec<Document>) -> Self {
        Self { array_filters, ..self }
    }

    /// A statement of an `update` command.
    pub(super) fn statement(self, query: Document, many: bool, upsert: bool) -> Document {
        let (query, change, filters) = self.parts(query);
        let mut statement = doc! { "q": query, "u": change, "multi": many, "upsert": upsert };
        statement.extend(filters);
        statement
    }

    /// A `findAndModify` command.
    pub(super) fn find_and_modify(self, collection: &str, query: Document, upsert: bool) -> Document {
        let (query, change, filters) = self.parts(query);
        let mut command = doc! {
            "findAndModify": collection,
            "query": query,
            "sort": { "_id": -1 },
            "update": change,
            "new": true,
            "upsert": upsert,
        };
        command.extend(filters);
        command
    }

    fn parts(self, mut query: Document) -> (Document, Bson, Document) {
        query.extend(self.query);
        let has_filters = !self.array_filters.is_empty();
        let filters = if has_filters { one("arrayFilters", self.array_filters) } else { Document::new() };
        (query, self.change, filters)
    }
}

impl Draw {
    /// Any update.
    pub(super) fn update(&self) -> Update {
        match self.int(10) {
            0..5 => Update::of(self.operators()),
            5..7 => self.of_elements(),
            _ => Update::of(self.pipeline()),
        }
    }

    /// An update that gives a document it makes something more.
    pub(super) fn upsert(&self) -> Update {
        let mut operators = self.operators();
        add(&mut operators, doc! { "$setOnInsert": { "made": self.int(20), "rows": [self.row()] } });
        Update::of(operators)
    }

    /// One to three operators. They may be in each other's way.
    fn operators(&self) -> Document {
        let mut all = Document::new();
        for _ in 0..=self.int(3) {
            add(&mut all, if self.chance(50) { self.of_fields() } else { self.of_arrays() });
        }
        all
    }

    fn of_fields(&self) -> Document {
        let some = self.int(20);
        match self.int(17) {
            0 | 1 => one("$set", one(self.of(&PATHS), self.value())),
            2 => doc! { "$set": { "n": some, "name": self.word() } },
            3 | 4 => one("$unset", one(self.of(&PATHS), "")),
            5 => doc! { "$inc": { "n": some, "m.a": 1 } },
            6 => one("$inc", one(self.of(&["rows.0.v", "list.1", "m.12", "0", "12.0"]), some)),
            7 => doc! { "$inc": { "amount": self.number() } },
            8 => doc! { "$mul": { "n": 2, "amount": 1.5 } },
            9 => doc! { "$min": { "n": some, "at": self.date() } },
            10 => doc! { "$max": { "n": some, "name": self.word() } },
            11 => doc! { "$rename": { "name": "title", "m.b": "m.c" } },
            12 => doc! { "$rename": { "title": "name", "m.c": "m.b" } },
            13 => doc! { "$rename": { "tags": "labels", "dot": "point" } },
            14 => doc! { "$rename": { "labels": "tags", "point": "dot" } },
            15 => doc! { "$currentDate": { "at": true, "m.stamp": { "$type": "timestamp" } } },
            _ => doc! { "$bit": { "flags": one(self.of(&["and", "or", "xor"]), some) } },
        }
    }

    fn of_arrays(&self) -> Document {
        let some = self.int(20);
        let end = self.of(&[-1, 1]);
        match self.int(13) {
            0 => doc! { "$push": { "tags": self.word() } },
            1 => {
                let (slice, position) = (self.of(&[-4, 0, 3, 6]), self.of(&[0, 1, -1, 9]));
                doc! { "$push": { "list": { "$each": [some, 1], "$slice": slice, "$position": position } } }
            }
            2 => doc! { "$push": { "list": { "$each": [some], "$sort": end, "$slice": -5 } } },
            3 => {
                let rows = doc! { "$each": [self.row(), self.row()], "$sort": { "v": end }, "$slice": 4 };
                doc! { "$push": { "rows": rows } }
            }
            4 => doc! { "$push": { "rows": self.row() } },
            5 => doc! { "$pop": { "list": end } },
            6 => doc! { "$pop": { "rows": end } },
            7 => doc! { "$pull": { "list": { "$gte": some } } },
            8 => doc! { "$pull": { "rows": { "k": some % 4 } } },
            9 => doc! { "$pullAll": { "tags": [self.word(), self.word()] } },
            10 => doc! { "$pullAll": { "list": [some, 1, 2] } },
            11 => doc! { "$addToSet": { "tags": { "$each": [self.word(), self.word()] } } },
            _ => doc! { "$addToSet": { "list": some } },
        }
    }

    fn of_elements(&self) -> Update {
        let (some, k) = (self.int(20), self.int(4));
        let with_row = doc! { "rows.k": k };
        match self.int(9) {
            0 => Update::of(doc! { "$set": { "rows.$.v": some } }).of_those(with_row),
            1 => Update::of(doc! { "$unset": { "rows.$.v": "" } }).of_those(with_row),
            2 => Update::of(doc! { "$push": { "rows.$.tags": self.word() } }).of_those(with_row),
            3 => Update::of(doc! { "$inc": { "list.$": 1 } }).of_those(doc! { "list": { "$gte": some } }),
            4 => Update::of(doc! { "$inc": { "rows.$[].v": 1 } }),
            5 => Update::of(doc! { "$inc": { "list.$[]": 1 } }),
            6 => Update::of(doc! { "$set": { "rows.$[x].v": some } })
                .filtering(vec![doc! { "x.k": { "$gte": k } }]),
            7 => Update::of(doc! { "$mul": { "list.$[x]": -1 } })
                .filtering(vec![doc! { "x": { "$lt": some } }]),
            _ => Update::of(doc! { "$set": { "rows.$[x].tags.$[y]": self.word() } })
                .filtering(vec![doc! { "x.k": k }, doc! { "y": self.word() }]),
        }
    }
}

/// Adds operators to others; of two fields of one operator with the same path, the later one counts.
fn add(all: &mut Document, operators: Document) {
    for (operator, fields) in operators {
        let Bson::Document(fields) = fields else { continue };
        if let Some(Bson::Document(there)) = all.get_mut(&operator) {
            there.extend(fields);
        } else {
            all.insert(operator, fields);
        }
    }
}
