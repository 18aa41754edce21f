//! Updates by pipelines. The server computes what they changed, and tells paths that may have several readings.
//!
//! None changes both a field with a dot in its name and the field in a document of the same path: no server before 6.1
//! can tell the two apart, and the window closes there, as it should.

use bson::{Bson, Document, doc};

use super::draw::Draw;

impl Draw {
    /// The stages of one update.
    pub(super) fn pipeline(&self) -> Vec<Document> {
        let some = self.int(20);
        match self.int(18) {
            0 => vec![doc! { "$set": { "n": { "$add": [{ "$ifNull": ["$n", 0] }, 1] }, "m.b.c": some } }],
            1 => vec![doc! { "$unset": ["m.b", "tags"] }],
            2 => {
                let more = doc! { "extra": { "at": some, "0": [some] }, "n": some };
                vec![doc! { "$replaceWith": { "$mergeObjects": ["$$ROOT", more] } }]
            }
            3 => {
                let kept = doc! { "_id": "$_id", "n": "$n", "rows": "$rows", "list": "$list", "m": "$m" };
                vec![doc! { "$replaceWith": kept }]
            }
            4..8 => self.of_arrays_by_pipeline(some),
            _ => self.of_odd_names(some),
        }
    }

    fn of_arrays_by_pipeline(&self, some: i32) -> Vec<Document> {
        let rows = array("$rows");
        match self.int(5) {
            0 => {
                let list = doc! { "$concatArrays": [{ "$slice": [array("$list"), 5] }, [some, some + 1]] };
                vec![doc! { "$set": { "list": list } }]
            }
            1 => {
                let kept = doc! { "$gt": ["$$row.v", some] };
                vec![doc! { "$set": { "rows": { "$filter": { "input": rows, "as": "row", "cond": kept } } } }]
            }
            2 => {
                let row = doc! { "$setField": { "field": "x.y", "input": object("$$row"), "value": some } };
                vec![doc! { "$set": { "rows": { "$map": { "input": rows, "as": "row", "in": row } } } }]
            }
            3 => {
                let turned =
                    doc! { "$cond": [{ "$isArray": "$mixed" }, { "$reverseArray": "$mixed" }, ["$mixed"]] };
                vec![doc! { "$set": { "mixed": turned } }, doc! { "$unset": "text" }]
            }
            _ => vec![doc! { "$set": { "mixed": { "0": some, "1": { "2": some } } } }],
        }
    }

    fn of_odd_names(&self, some: i32) -> Vec<Document> {
        let in_root = |field: Bson, value: Bson| {
            doc! { "$replaceWith": { "$setField": { "field": field, "input": "$$ROOT", "value": value } } }
        };
        let in_m = |field: &str, value: Bson| {
            let set = doc! { "$setField": { "field": field, "input": object("$m"), "value": value } };
            doc! { "$set": { "m": set } }
        };
        let without = |field: &str, input: Bson| {
            doc! { "$unsetField": { "field": field, "input": input } }
        };
        vec![match self.int(10) {
            0 | 1 => in_root("dot.ted".into(), some.into()),
            2 => in_root(doc! { "$literal": "$cash" }.into(), some.into()),
            3 => in_root("0".into(), some.into()),
            4 | 5 => in_m("a.b", some.into()),
            6 => in_m("12", vec![some].into()),
            7 => doc! { "$replaceWith": without("dot.ted", "$$ROOT".into()) },
            8 => doc! { "$set": { "m": without("a.b", object("$m").into()) } },
            _ => {
                let merged = doc! { "$mergeObjects": [object("$m"), { "12": some, "x": { "0": some } }] };
                doc! { "$set": { "m": merged } }
            }
        }]
    }
}

/// A field, or an empty array if it is none.
fn array(field: &str) -> Document {
    doc! { "$cond": [{ "$isArray": field }, field, []] }
}

/// A field, or an empty document if it is none.
fn object(field: &str) -> Document {
    doc! { "$cond": [{ "$eq": [{ "$type": field }, "object"] }, field, {}] }
}
