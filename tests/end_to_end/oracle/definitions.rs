//! Changes of what a database has: collections, views, options and indexes.

use bson::{Document, doc};

use super::DATABASES;
use super::documents::one;
use super::draw::Draw;

/// Collections that come, go, and get each other's names. What `_id`s they have, their name decides.
const NAMES: [&str; 8] =
    ["whole", "texts", "objects", "composed", "mixed", "made 0", "made 1", "put together"];
const VIEWS: [&str; 2] = ["seen", "seen otherwise"];
const INDEXES: [&str; 14] = [
    "n",
    "n and name",
    "serial",
    "unique",
    "partial",
    "ttl",
    "hidden",
    "wild",
    "wild m",
    "words",
    "hashed",
    "place",
    "tags",
    "french",
];
/// Nothing is as old.
const DECADES: i32 = 2_000_000_000;

/// A command, and the database it is run in.
pub(super) type Command = (String, Document);

/// What a database begins with, besides documents. Their names never change.
pub(super) fn first(database: &str) -> Vec<Command> {
    let view =
        doc! { "create": "seen", "viewOn": "whole", "pipeline": [{ "$match": { "n": { "$gt": 5 } } }] };
    let mut all = [capped(), expiring(), collated()].concat();
    all.push(view);
    here(database, all)
}

fn here(database: &str, commands: Vec<Document>) -> Vec<Command> {
    commands.into_iter().map(|command| (database.to_owned(), command)).collect()
}

fn capped() -> Vec<Document> {
    vec![doc! { "create": "capped", "capped": true, "size": 16_384, "max": 12 }]
}

/// Documents of the past are deleted by the server, soon.
fn expiring() -> Vec<Document> {
    let index = doc! { "key": { "at": 1 }, "name": "hour", "expireAfterSeconds": 3600 };
    vec![doc! { "createIndexes": "expiring", "indexes": [index] }]
}

fn collated() -> Vec<Document> {
    vec![doc! { "create": "collated", "collation": { "locale": "de", "strength": 2 } }]
}

impl Draw {
    /// The commands of one change.
    pub(super) fn definition(&self, database: &str) -> Vec<Command> {
        let name = self.of(&NAMES);
        here(
            database,
            match self.int(30) {
                0..3 => vec![self.creation(name)],
                3 => vec![one("drop", name)],
                4 => vec![one("drop", name), self.creation(name), self.creation_of_index(name)],
                5..9 => return vec![self.renaming(database)],
                9..14 => vec![self.creation_of_index(name)],
                14 | 15 => vec![self.drop_of_index(name)],
                16..21 => vec![self.modification(name)],
                21..24 => vec![self.view()],
                24..27 => vec![self.aggregation(name)],
                27 | 28 => self.again(),
                _ if self.chance(25) => vec![one("dropDatabase", 1)],
                _ => vec![one("drop", self.of(&VIEWS))],
            },
        )
    }

    fn creation(&self, name: &str) -> Document {
        let (level, action) = (self.of(&["strict", "moderate", "off"]), self.of(&["error", "warn"]));
        let key = doc! { "key": { "_id": 1 }, "unique": true, "name": "by its id" };
        let mut command = one("create", name);
        command.extend(match self.int(7) {
            0 => doc! {
                "validator": { "n": { "$not": { "$gt": 15 } } },
                "validationLevel": level,
                "validationAction": action,
            },
            1 => {
                let properties = doc! { "name": { "bsonType": "string" } };
                doc! { "validator": { "$jsonSchema": { "properties": properties } } }
            }
            2 => one("clusteredIndex", key),
            3 => doc! { "clusteredIndex": key, "expireAfterSeconds": DECADES },
            4 => doc! { "changeStreamPreAndPostImages": { "enabled": true } },
            _ => doc! {},
        });
        command
    }

    /// To another database it is copied, and then renamed there.
    fn renaming(&self, database: &str) -> Command {
        let to = if self.chance(10) { self.of(&DATABASES) } else { database };
        let command = doc! {
            "renameCollection": format!("{database}.{}", self.of(&NAMES)),
            "to": format!("{to}.{}", self.of(&NAMES)),
            "dropTarget": self.chance(50),
        };
        ("admin".to_owned(), command)
    }

    fn creation_of_index(&self, name: &str) -> Document {
        let count = 1 + self.int(2);
        let indexes: Vec<Document> = (0..count).map(|_| self.index()).collect();
        doc! { "createIndexes": name, "indexes": indexes }
    }

    fn index(&self) -> Document {
        let name = self.of(&INDEXES);
        let options = match name {
            "n" => doc! { "key": { "n": 1 } },
            "n and name" => doc! { "key": { "n": -1, "name": 1 } },
            "serial" => doc! { "key": { "serial": 1 } },
            "unique" => doc! { "key": { "serial": -1 }, "unique": true, "sparse": true },
            "partial" => doc! { "key": { "name": 1 }, "partialFilterExpression": { "n": { "$gt": 5 } } },
            "ttl" => doc! { "key": { "at": 1 }, "expireAfterSeconds": DECADES },
            "hidden" => doc! { "key": { "amount": 1 }, "hidden": true },
            "wild" => doc! { "key": { "$**": 1 }, "wildcardProjection": { "n": 1, "tags": 1 } },
            "wild m" => doc! { "key": { "m.$**": 1 } },
            "words" => doc! {
                "key": { "name": "text", "title": "text" },
                "weights": { "name": 3 },
                "default_language": "german",
            },
            "hashed" => doc! { "key": { "name": "hashed" } },
            "place" => doc! { "key": { "place": "2dsphere" } },
            "tags" => doc! { "key": { "tags": 1 } },
            _ => doc! { "key": { "name": 1 }, "collation": { "locale": "fr" } },
        };
        let mut index = one("name", name);
        index.extend(options);
        index
    }

    fn drop_of_index(&self, name: &str) -> Document {
        let index = if self.chance(15) { "*" } else { self.of(&INDEXES) };
        doc! { "dropIndexes": name, "index": index }
    }

    fn modification(&self, name: &str) -> Document {
        let mut command = one("collMod", name);
        command.extend(match self.int(10) {
            0 => doc! { "validator": { "n": { "$not": { "$gt": self.int(20) } } } },
            1 => doc! { "validator": {} },
            2 => one("validationLevel", self.of(&["off", "moderate", "strict"])),
            3 => one("validationAction", self.of(&["warn", "error"])),
            4 => doc! { "changeStreamPreAndPostImages": { "enabled": self.chance(50) } },
            5 if self.chance(50) => doc! { "expireAfterSeconds": DECADES + self.int(10) },
            5 => doc! { "expireAfterSeconds": "off" },
            _ => one("index", self.modification_of_index()),
        });
        command
    }

    fn modification_of_index(&self) -> Document {
        let set = self.chance(60);
        match self.int(6) {
            0 | 1 => doc! { "name": self.of(&INDEXES), "hidden": set },
            2 => doc! { "name": self.of(&["ttl", "n"]), "expireAfterSeconds": DECADES + self.int(10) },
            3 | 4 => doc! { "name": "serial", "prepareUnique": set },
            _ => doc! { "name": "serial", "unique": true },
        }
    }

    fn view(&self) -> Document {
        let (view, from) = (self.of(&VIEWS), self.of(&NAMES));
        let pipeline = vec![doc! { "$match": { "n": { "$gt": self.int(20) } } }, doc! { "$unset": "text" }];
        match self.int(4) {
            0 => doc! { "create": view, "viewOn": from, "pipeline": pipeline },
            1 => {
                doc! { "create": view, "viewOn": from, "pipeline": pipeline, "collation": { "locale": "fr" } }
            }
            2 => doc! { "collMod": view, "viewOn": from, "pipeline": pipeline },
            _ => one("drop", view),
        }
    }

    fn aggregation(&self, from: &str) -> Document {
        let to = self.of(&NAMES);
        let last = match self.int(5) {
            0 | 1 => one("$out", to),
            2 => doc! { "$out": { "db": self.of(&DATABASES), "coll": to } },
            3 => {
                let changed = vec![doc! { "$set": { "merged": self.int(20) } }];
                doc! { "$merge": { "into": to, "whenMatched": changed, "whenNotMatched": "insert" } }
            }
            _ => {
                let matched = self.of(&["replace", "keepExisting", "fail"]);
                doc! { "$merge": { "into": to, "whenMatched": matched, "whenNotMatched": "insert" } }
            }
        };
        let some = doc! { "$match": { "n": { "$gte": self.int(20) } } };
        doc! { "aggregate": from, "pipeline": [some, last], "cursor": {} }
    }

    /// One of those that a database begins with goes, and comes back.
    fn again(&self) -> Vec<Document> {
        let (name, mut commands) = match self.int(3) {
            0 => ("capped", capped()),
            1 => ("expiring", expiring()),
            _ => ("collated", collated()),
        };
        commands.insert(0, one("drop", name));
        commands
    }
}
