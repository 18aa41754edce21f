//! What a `modify` changes: the fields of the `collMod` command as the event gives them, and as the server stores them.
//!
//! Whatever is not known here is refused by its name: a window is closed at it, and nothing is guessed.

use bson::raw::CStr;
use bson::{RawBsonRef, RawDocument, RawDocumentBuf, cstr};

use super::is_named;
use crate::error::Result;
use crate::namespace::Namespace;
use crate::plan::metadata::without;

/// Server 6.0 stores the size of a capped collection as a multiple of this, but tells what it was asked for. Newer ones
/// store just that: there, the fold is larger by less than this.
const CAPPED_BYTES_STEP: u64 = 256;
/// What servers store if a capped collection's documents are not to be limited.
const CAPPED_DOCUMENTS_MAX: i64 = 0x7fff_ffff;
const VALIDATION: [&str; 3] = ["validator", "validationLevel", "validationAction"];

/// A field of a collection's options, or of one of its indexes, and its new value; none takes the field away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Setting<'a> {
    index: Option<&'a str>,
    field: &'a CStr,
    value: Option<RawBsonRef<'a>>,
}

/// What a change of a collection sets; an error is the name of the first field that is not understood.
pub(super) fn settings(description: &RawDocument) -> Result<Vec<Setting<'_>>, String> {
    let mut all = Vec::new();
    for element in description {
        let (field, value) = element.map_err(|_| "malformed".to_owned())?;
        match value {
            RawBsonRef::Document(index) if field.as_str() == "index" => all.extend(of_index(index)?),
            _ => all.push(of_options(field, value).ok_or_else(|| field.as_str().to_owned())?),
        }
    }
    Ok(all)
}

/// The name of the first field of a view's new definition that is not understood.
pub(super) fn unknown_of_view(definition: &RawDocument) -> Option<String> {
    definition.iter().find_map(|element| match element {
        Ok((field, _)) if ["viewOn", "pipeline", "collation"].contains(&field.as_str()) => None,
        Ok((field, _)) => Some(field.as_str().to_owned()),
        Err(_) => Some("malformed".to_owned()),
    })
}

/// Sets them. An index that is not there is passed over: it was dropped since.
pub(super) fn set(namespace: &mut Namespace, settings: &[Setting<'_>]) -> Result<()> {
    for Setting { index, field, value } in settings {
        match index {
            None => namespace.options = with(&namespace.options, field, *value)?,
            Some(name) => {
                if let Some(index) = namespace.indexes.iter_mut().find(|it| is_named(it, name)) {
                    *index = with(index, field, *value)?;
                }
            }
        }
    }
    if settings.iter().any(|it| it.index.is_none() && VALIDATION.contains(&it.field.as_str())) {
        make_validation_explicit(&mut namespace.options);
    }
    Ok(())
}

fn of_options<'a>(field: &'a CStr, value: RawBsonRef<'a>) -> Option<Setting<'a>> {
    let (field, value) = match (field.as_str(), value) {
        ("validator", RawBsonRef::Document(rule)) => (field, (!rule.is_empty()).then_some(value)),
        ("validationLevel" | "validationAction", RawBsonRef::String(_)) => (field, Some(value)),
        ("changeStreamPreAndPostImages", RawBsonRef::Document(images)) => {
            (field, images.get_bool("enabled").ok()?.then_some(value))
        }
        ("expireAfterSeconds", RawBsonRef::String("off")) => (field, None),
        ("expireAfterSeconds", _) if is_number(value) => (field, Some(value)),
        ("cappedSize", _) => (cstr!("size"), Some(RawBsonRef::Int64(stored_size(whole(value)?)?))),
        ("cappedMax", _) => (cstr!("max"), Some(RawBsonRef::Int64(stored_max(whole(value)?)))),
        _ => return None,
    };
    Some(Setting { index: None, field, value })
}

fn of_index(index: &RawDocument) -> Result<Vec<Setting<'_>>, String> {
    let name = index.get_str("name").map_err(|_| "index.name".to_owned())?;
    let mut all = Vec::new();
    for element in index {
        let (field, value) = element.map_err(|_| "index".to_owned())?;
        let value = match (field.as_str(), value) {
            ("name", _) => continue,
            ("expireAfterSeconds", _) if is_number(value) => Some(value),
            ("hidden" | "prepareUnique" | "unique", RawBsonRef::Boolean(is_set)) => is_set.then_some(value),
            (unknown, _) => return Err(format!("index.{unknown}")),
        };
        if field.as_str() == "unique" {
            // It was prepared for that, and no longer is.
            all.push(Setting { index: Some(name), field: cstr!("prepareUnique"), value: None });
        }
        all.push(Setting { index: Some(name), field, value });
    }
    Ok(all)
}

const fn is_number(value: RawBsonRef<'_>) -> bool {
    matches!(value, RawBsonRef::Int32(_) | RawBsonRef::Int64(_) | RawBsonRef::Double(_))
}

fn whole(value: RawBsonRef<'_>) -> Option<i64> {
    value.as_i64().or_else(|| value.as_i32().map(i64::from))
}

fn stored_size(wanted: i64) -> Option<i64> {
    let stored = u64::try_from(wanted).ok()?.checked_next_multiple_of(CAPPED_BYTES_STEP)?;
    i64::try_from(stored).ok()
}

fn stored_max(wanted: i64) -> i64 {
    if (1..CAPPED_DOCUMENTS_MAX).contains(&wanted) { wanted } else { CAPPED_DOCUMENTS_MAX }
}

fn with(document: &RawDocument, field: &CStr, value: Option<RawBsonRef<'_>>) -> Result<RawDocumentBuf> {
    let mut changed = without(document, &[field.as_str()])?;
    if let Some(value) = value {
        changed.append(field, value);
    }
    Ok(changed)
}

/// Whatever of the validation is changed, the server writes down the rest of it, too.
fn make_validation_explicit(options: &mut RawDocumentBuf) {
    for (field, standard) in [(cstr!("validationLevel"), "strict"), (cstr!("validationAction"), "error")] {
        if matches!(options.get(field), Ok(None)) {
            options.append(field, standard);
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;
    use crate::id::CollectionUuid;
    use crate::namespace::{NamespaceKind, same_fields};

    fn modified(options: RawDocumentBuf, index: RawDocumentBuf, description: &RawDocument) -> Namespace {
        let mut namespace = Namespace {
            name: "c".into(),
            kind: NamespaceKind::Collection,
            uuid: Some(CollectionUuid::NONE),
            options,
            indexes: vec![index],
            unfinished_indexes: vec![],
        };
        set(&mut namespace, &settings(description).unwrap()).unwrap();
        namespace
    }

    #[test]
    fn options_are_set_as_the_server_stores_them() {
        let check = |before: RawDocumentBuf, description: RawDocumentBuf, after: RawDocumentBuf| {
            let options = modified(before, rawdoc! {}, &description).options;
            assert!(same_fields(&options, &after), "{description:?}: {options:?}, not {after:?}");
        };
        let strict =
            || rawdoc! { "validator": { "a": 1 }, "validationLevel": "strict", "validationAction": "error" };
        check(rawdoc! {}, rawdoc! { "validator": { "a": 1 } }, strict());
        check(
            rawdoc! {},
            rawdoc! { "validator": { "a": 1 }, "validationLevel": "strict", "validationAction": "warn" },
            rawdoc! { "validator": { "a": 1 }, "validationLevel": "strict", "validationAction": "warn" },
        );
        check(
            rawdoc! { "validator": { "q": { "$gt": 1 } }, "validationLevel": "moderate" },
            rawdoc! { "validator": {} },
            rawdoc! { "validationLevel": "moderate", "validationAction": "error" },
        );
        check(
            rawdoc! { "validationLevel": "moderate", "validationAction": "error" },
            rawdoc! { "validationLevel": "off" },
            rawdoc! { "validationLevel": "off", "validationAction": "error" },
        );
        check(
            rawdoc! {},
            rawdoc! { "validationAction": "warn" },
            rawdoc! { "validationLevel": "strict", "validationAction": "warn" },
        );
        check(strict(), rawdoc! {}, strict());
        let images = |enabled: bool| rawdoc! { "changeStreamPreAndPostImages": { "enabled": enabled } };
        check(rawdoc! {}, images(true), images(true));
        check(images(true), images(false), rawdoc! {});
        let clustered =
            rawdoc! { "clusteredIndex": { "v": 2, "key": { "_id": 1 }, "name": "_id_", "unique": true } };
        let mut expiring = clustered.clone();
        expiring.append(cstr!("expireAfterSeconds"), 1000);
        let mut later = clustered.clone();
        later.append(cstr!("expireAfterSeconds"), 2000_i64);
        check(expiring.clone(), rawdoc! { "expireAfterSeconds": 2000 }, later);
        check(expiring, rawdoc! { "expireAfterSeconds": "off" }, clustered);
        let capped = |size: i64, max: i64| rawdoc! { "capped": true, "size": size, "max": max };
        check(capped(5120, 10), rawdoc! { "cappedSize": 9000, "cappedMax": 20 }, capped(9216, 20));
        check(
            capped(5120, 10),
            rawdoc! { "cappedSize": 9216_i64, "cappedMax": 0 },
            capped(9216, 0x7fff_ffff),
        );
    }

    #[test]
    fn an_index_is_found_by_its_name_and_changed() {
        let plain = || rawdoc! { "v": 2, "key": { "p": 1 }, "name": "p_1" };
        let and = |field: &CStr| {
            let mut index = plain();
            index.append(field, true);
            index
        };
        let check = |before: RawDocumentBuf, change: RawDocumentBuf, after: RawDocumentBuf| {
            let description = rawdoc! { "index": change };
            let indexes = modified(rawdoc! {}, before, &description).indexes;
            assert!(same_fields(&indexes[0], &after), "{description:?}: {:?}, not {after:?}", indexes[0]);
        };
        check(plain(), rawdoc! { "name": "p_1", "hidden": true }, and(cstr!("hidden")));
        check(and(cstr!("hidden")), rawdoc! { "name": "p_1", "hidden": false }, plain());
        check(plain(), rawdoc! { "name": "p_1", "prepareUnique": true }, and(cstr!("prepareUnique")));
        check(and(cstr!("prepareUnique")), rawdoc! { "name": "p_1", "prepareUnique": false }, plain());
        let unique = rawdoc! { "name": "p_1", "unique": true };
        check(and(cstr!("prepareUnique")), unique.clone(), and(cstr!("unique")));
        check(plain(), unique, and(cstr!("unique")));
        let ttl = |seconds: i64| rawdoc! { "v": 2, "key": { "p": 1 }, "name": "p_1", "expireAfterSeconds": seconds };
        check(plain(), rawdoc! { "name": "p_1", "expireAfterSeconds": 77 }, ttl(77));
        check(ttl(77), rawdoc! { "name": "p_1", "expireAfterSeconds": 0 }, ttl(0));
        check(plain(), rawdoc! { "name": "gone", "hidden": true }, plain());
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (description, unknown) in [
            (rawdoc! {}, None),
            (rawdoc! { "index": { "name": "p_1" } }, None),
            (rawdoc! { "timeseries": { "granularity": "hours" } }, Some("timeseries")),
            (rawdoc! { "recordPreImages": true }, Some("recordPreImages")),
            (rawdoc! { "validator": {}, "next": 1 }, Some("next")),
            (rawdoc! { "expireAfterSeconds": "on" }, Some("expireAfterSeconds")),
            (rawdoc! { "cappedSize": "much" }, Some("cappedSize")),
            (rawdoc! { "cappedSize": -1 }, Some("cappedSize")),
            (rawdoc! { "index": 1 }, Some("index")),
            (rawdoc! { "index": { "keyPattern": { "p": 1 }, "hidden": true } }, Some("index.name")),
            (rawdoc! { "index": { "name": "p_1", "forceNonUnique": true } }, Some("index.forceNonUnique")),
            (rawdoc! { "index": { "name": "p_1", "hidden": 1 } }, Some("index.hidden")),
        ] {
            assert_eq!(settings(&description).err().as_deref(), unknown, "{description:?}");
        }
        let view = rawdoc! { "viewOn": "a", "pipeline": [], "collation": { "locale": "fr" } };
        assert_eq!(unknown_of_view(&view), None);
        assert_eq!(unknown_of_view(&rawdoc! { "viewOn": "a", "next": 1 }).as_deref(), Some("next"));
    }
}
