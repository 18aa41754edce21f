//! The owner's checks of restored data: how many documents of a collection may match a filter.
//!
//! The owner writes them as JSON. Filters are read as extended JSON and restricted: nothing in them runs code on a
//! server.

use std::collections::HashSet;

use bson::{Document, RawBsonRef, RawDocument, RawDocumentBuf};
use serde::{Deserialize, Serialize};

use crate::bson::base64_document;
use crate::error::{Error, ErrorKind, Result};
use crate::format::Manifest;
use crate::namespace::NamespaceKind;

/// The longest file of checks.
pub const CHECKS_BYTES_MAX: u64 = 256 * 1024;
/// The most checks there can be: each is a scan of a collection.
const CHECKS_MAX: usize = 100;
const NAME_CHARACTERS_MAX: usize = 100;
/// The version of the file that is read.
const FORMAT: u16 = 1;
/// What runs code of the filter's author on the server.
const FORBIDDEN: [&str; 3] = ["$where", "$function", "$accumulator"];

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What it is called in reports and errors.
    pub name: String,
    /// The database.
    pub database: String,
    /// The collection.
    pub collection: String,
    /// Which documents are counted.
    #[serde(with = "base64_document")]
    pub filter: RawDocumentBuf,
    /// How many there must be.
    pub at_least: u64,
    /// How many there may be.
    pub at_most: Option<u64>,
}

/// What a check found in what was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckCount {
    /// The check's name.
    pub name: String,
    /// Documents that match.
    pub count: u64,
    /// How many there must be.
    pub at_least: u64,
    /// How many there may be.
    pub at_most: Option<u64>,
}

/// How much of a database was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Some chunks: there may be too many matching documents already, but too few can still become enough.
    Part,
    /// Every chunk.
    Whole,
}

/// The file as the owner writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u16,
    checks: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    database: String,
    collection: String,
    filter: Document,
    #[serde(default)]
    at_least: u64,
    #[serde(default)]
    at_most: Option<u64>,
}

/// Reads a file of checks; `Invalid` if it is not one, or has what a check must not have.
pub fn parse(json: &[u8]) -> Result<Vec<Check>> {
    let file: File = serde_json::from_slice(json).map_err(|why| {
        // The reader's own message may quote a value: only the place is told.
        invalid(format!("unexpected JSON at line {} column {}", why.line(), why.column()))
    })?;
    if file.format != FORMAT {
        return Err(invalid(format!("it has format {}, not {FORMAT}", file.format)));
    }
    if file.checks.len() > CHECKS_MAX {
        return Err(invalid(format!("it has more than {CHECKS_MAX} checks")));
    }
    let numbered = (1..).zip(file.checks);
    let checks: Vec<Check> = numbered.map(|(number, it)| read(number, it)).collect::<Result<_>>()?;
    let mut names = HashSet::new();
    if let Some(twice) = checks.iter().find(|check| !names.insert(check.name.as_str())) {
        return Err(invalid(format!("two checks are called {:?}", twice.name)));
    }
    Ok(checks)
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, "read the checks of restored data")
        .because(why.into())
        .hint("correct the file of checks; docs/RUNBOOK.md says what it may have")
}

fn read(number: usize, it: Written) -> Result<Check> {
    let length = it.name.chars().count();
    if length == 0 || length > NAME_CHARACTERS_MAX || it.name.chars().any(char::is_control) {
        return Err(invalid(format!(
            "the name of check {number} is not one of 1 to {NAME_CHARACTERS_MAX} printable characters"
        )));
    }
    let of = |why: &str| invalid(format!("check {:?} {why}", it.name));
    if it.database.is_empty() || it.collection.is_empty() {
        return Err(of("names no database or no collection"));
    }
    if it.at_least == 0 && it.at_most.is_none() {
        return Err(of("can never fail: it needs at_least or at_most"));
    }
    if it.at_most.is_some_and(|at_most| at_most < it.at_least) {
        return Err(of("can never pass: at_most is less than at_least"));
    }
    let filter = RawDocumentBuf::try_from(&it.filter).map_err(|_| of("has a filter that is no document"))?;
    if !is_harmless(&filter) {
        return Err(of("has a filter that runs code"));
    }
    let Written { name, database, collection, at_least, at_most, .. } = it;
    Ok(Check { name, database, collection, filter, at_least, at_most })
}

/// Whether nothing in it, however deep, runs code. What cannot be walked over counts as harmful.
fn is_harmless(filter: &RawDocument) -> bool {
    filter.iter().all(|element| {
        element.is_ok_and(|(name, value)| !FORBIDDEN.contains(&name.as_str()) && is_harmless_value(value))
    })
}

fn is_harmless_value(value: RawBsonRef<'_>) -> bool {
    match value {
        RawBsonRef::Document(document) => is_harmless(document),
        RawBsonRef::Array(array) => array.into_iter().all(|item| item.is_ok_and(is_harmless_value)),
        RawBsonRef::JavaScriptCode(_) | RawBsonRef::JavaScriptCodeWithScope(_) => false,
        _ => true,
    }
}

/// The checks of what this backup holds; `Invalid` if one of them cannot be carried out on it.
pub fn concerning<'a>(checks: &'a [Check], manifest: &Manifest) -> Result<Vec<&'a Check>> {
    let holds = |check: &&Check| {
        let is_in_it = manifest.collections.is_empty() || manifest.collections.contains(&check.collection);
        check.database == manifest.database && is_in_it
    };
    let found: Vec<&Check> = checks.iter().filter(holds).collect();
    let is_collection = |check: &&Check| {
        let entry = manifest.namespaces.iter().find(|it| it.namespace.name == check.collection);
        entry.is_none_or(|entry| entry.namespace.kind == NamespaceKind::Collection)
    };
    match found.iter().copied().find(|check| !is_collection(check)) {
        None => Ok(found),
        Some(other) => Err(invalid(format!(
            "check {:?} names a view or a time series: only documents of collections can be counted",
            other.name
        ))),
    }
}

impl Check {
    /// What it found: so many documents.
    #[must_use]
    pub fn counted(&self, count: u64) -> CheckCount {
        let Self { name, at_least, at_most, .. } = self;
        CheckCount { name: name.clone(), count, at_least: *at_least, at_most: *at_most }
    }
}

/// Sums over the parts of a database, in the order in which the checks come first.
#[must_use]
pub fn sum<'a>(parts: impl IntoIterator<Item = &'a CheckCount>) -> Vec<CheckCount> {
    let mut all: Vec<CheckCount> = Vec::new();
    for part in parts {
        let same = |it: &&mut CheckCount| {
            (&it.name, it.at_least, it.at_most) == (&part.name, part.at_least, part.at_most)
        };
        match all.iter_mut().find(same) {
            Some(found) => found.count = found.count.saturating_add(part.count),
            None => all.push(part.clone()),
        }
    }
    all
}

/// `ValidationFailed`, naming the check, if one of them does not hold as far as can be known.
pub fn judge(counts: &[CheckCount], extent: Extent) -> Result<()> {
    counts.iter().try_for_each(|found| {
        let CheckCount { name, count, at_least, at_most } = found;
        let failed = |what: String| {
            let what = format!("check {name:?} of restored data: {what}");
            Err(Error::new(ErrorKind::ValidationFailed, what)
                .hint("the owner's check refuses this backup: look at the live data, and keep older backups"))
        };
        match at_most {
            Some(at_most) if count > at_most => {
                failed(format!("{count} documents match, at most {at_most} may"))
            }
            _ if extent == Extent::Whole && count < at_least => {
                failed(format!("{count} documents match, at least {at_least} must"))
            }
            _ => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;
    use proptest::prelude::*;

    use super::*;

    fn file(check: &str) -> Vec<u8> {
        let named = r#""name":"n","database":"crm","collection":"leads""#;
        format!(r#"{{"format":1,"checks":[{{{named},{check}}}]}}"#).into()
    }

    #[test]
    fn a_filter_is_extended_json_in_its_order() {
        let id = "000000000000000000000001";
        let date = r#"{"$date":"1970-01-01T00:00:01Z"}"#;
        let filter = format!(r#"{{"z":{{"$gt":3}},"a":{date},"id":{{"$oid":"{id}"}}}}"#);
        let checks = parse(&file(&format!(r#""filter":{filter},"at_most":0"#))).unwrap();
        let [check] = checks.as_slice() else { panic!("{checks:?}") };
        let expected = rawdoc! {
            "z": { "$gt": 3 },
            "a": bson::DateTime::from_millis(1000),
            "id": bson::oid::ObjectId::parse_str(id).unwrap(),
        };
        assert_eq!(check.filter, expected);
        assert_eq!((check.at_least, check.at_most), (0, Some(0)));
        let again: Check = serde_json::from_slice(&serde_json::to_vec(check).unwrap()).unwrap();
        assert_eq!(&again, check);
    }

    #[test]
    fn what_is_no_check_is_refused_and_not_quoted() {
        let check = |json: &[u8]| {
            let why = parse(json).unwrap_err();
            assert_eq!(why.kind(), ErrorKind::Invalid);
            assert!(!format!("{why} {why:?}").contains("canary"), "{why}");
        };
        for text in [
            r#""filter":{"$where":"canary"},"at_most":0"#,
            r#""filter":{"a":[{"b":{"$where":"canary"}}]},"at_most":0"#,
            r#""filter":{"$expr":{"$function":{"body":"canary","args":[],"lang":"js"}}},"at_most":0"#,
            r#""filter":{"$expr":{"$gt":[{"$accumulator":{"init":"canary"}},1]}},"at_most":0"#,
            r#""filter":{"a":{"$code":"canary"}},"at_most":0"#,
            r#""filter":{"a":{"$code":"canary","$scope":{}}},"at_most":0"#,
            r#""filter":{"can\u0000ary":1},"at_most":0"#,
            r#""filter":{"$oid":"canary"},"at_most":0"#,
            r#""filter":["canary"],"at_most":0"#,
            r#""filter":{}"#,
            r#""filter":{},"at_least":2,"at_most":1"#,
            r#""filter":{},"at_least":-1"#,
            r#""filter":{},"at_most":0,"canary":1"#,
            r#""at_most":0"#,
        ] {
            check(&file(text));
        }
        let deep = format!(r#""filter":{}1{},"at_most":0"#, r#"{"a":"#.repeat(5000), "}".repeat(5000));
        check(&file(&deep));
        for text in ["", "canary", "[]", r#"{"format":2,"checks":[]}"#, r#"{"format":1}"#] {
            check(text.as_bytes());
        }
        let one = r#"{"name":"n","database":"crm","collection":"leads","filter":{},"at_most":0}"#;
        check(format!(r#"{{"format":1,"checks":[{one},{one}]}}"#).as_bytes());
        let many: Vec<String> = (0..=CHECKS_MAX).map(|n| one.replace("\"n\"", &format!("\"{n}\""))).collect();
        check(format!(r#"{{"format":1,"checks":[{}]}}"#, many.join(",")).as_bytes());
        for name in ["", "a\\u0007", &"x".repeat(NAME_CHARACTERS_MAX + 1)] {
            let named = one.replace("\"n\"", &format!("\"{name}\""));
            check(format!(r#"{{"format":1,"checks":[{named}]}}"#).as_bytes());
        }
    }

    #[test]
    fn too_many_fail_at_once_and_too_few_on_the_whole() {
        let check = |count, at_least, at_most, part: bool, whole: bool| {
            let found = [CheckCount { name: "phones".into(), count, at_least, at_most }];
            for (extent, passes) in [(Extent::Part, part), (Extent::Whole, whole)] {
                match judge(&found, extent) {
                    Ok(()) => assert!(passes, "{found:?} {extent:?}"),
                    Err(why) => {
                        assert!(!passes, "{found:?} {extent:?}");
                        assert_eq!(why.kind(), ErrorKind::ValidationFailed);
                        assert!(why.to_string().contains("phones"));
                    }
                }
            }
        };
        check(0, 0, Some(0), true, true);
        check(1, 0, Some(0), false, false);
        check(4, 5, None, true, false);
        check(5, 5, None, true, true);
        check(5, 5, Some(5), true, true);
        check(6, 5, Some(5), false, false);
    }

    #[test]
    fn counts_of_parts_are_added_up() {
        let count = |name: &str, count| CheckCount { name: name.into(), count, at_least: 1, at_most: None };
        let parts = [count("a", 1), count("b", 2), count("a", 3), count("b", u64::MAX)];
        assert_eq!(sum(&parts), [count("a", 4), count("b", u64::MAX)]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r#"[\[\]{}":,$a-z0-9\\.-]{0,200}"#, filter in ".{0,60}") {
            let _ = parse(text.as_bytes());
            let _ = parse(&file(&format!(r#""filter":{filter},"at_most":0"#)));
        }
    }
}
