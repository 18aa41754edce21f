//! What a server may refuse of a random workload. Any other refusal means that the workload is not what it should be.

use bson::{Bson, Document};
use mongodb::error::ErrorKind;

/// Codes of refusals.
#[rustfmt::skip]
const EXPECTED: [i32; 57] = [
    // An operator that does not fit the document: a path, a type, a place in an array, a number that overflows,
    // operators in each other's way, an `_id` that would change.
    2, 14, 15, 28, 40, 52, 66,
    // The same in a pipeline, by its operators' own codes.
    16_554, 16_883, 28_651, 28_664, 28_724, 28_729, 34_435, 40_228, 40_400,
    4_161_104, 4_161_105, 4_161_106, 4_161_107, 4_161_108, 4_161_109,
    // A key that is there, a validator, a document of another size in a capped collection.
    11_000, 121, 10_003,
    // A collection, view or index that is there, or is not, or is something else.
    20, 26, 27, 48, 166, 167, 17_152,
    // Options that do not go together, or not with what is there.
    67, 68, 72, 73, 85, 86, 197, 359,
    // Documents that an index cannot hold: parallel arrays, a point that is none, an array to be hashed, languages.
    171, 16_755, 16_756, 16_766, 17_261, 17_262,
    // `$merge` by an `_id` that is null.
    51_132,
    // A transaction that was refused something, or stands in the way of another one.
    24, 112, 225, 246, 251, 256, 263, 290,
    // An index build that was ended by a document, or that is the same as another one under another name.
    96, 276,
];

/// Whether a server may say so.
pub(super) fn is_expected(code: i32) -> bool {
    // Of some decimals 6.0.5 cannot read its own key back, to tell that it is there.
    EXPECTED.contains(&code) || (50_800..50_900).contains(&code)
}

/// The codes in a reply to writes of which some were refused, with what the server says.
pub(super) fn of_reply(reply: &Document) -> Vec<(i32, String)> {
    let Ok(errors) = reply.get_array("writeErrors") else { return Vec::new() };
    let errors = errors.iter().filter_map(Bson::as_document);
    errors.map(|error| (error.get_i32("code").unwrap(), error.to_string())).collect()
}

/// The code of a refusal; none if it is something else that failed.
pub(super) fn of_error(why: &mongodb::error::Error) -> Option<i32> {
    match why.kind.as_ref() {
        ErrorKind::Command(refused) => Some(refused.code),
        _ => None,
    }
}
