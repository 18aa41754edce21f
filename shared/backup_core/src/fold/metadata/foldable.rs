//! Which changes no fold can follow. The capture asks before it archives a change, so that the window closes where the
//! database cannot be followed any longer, and not when somebody needs it.

use super::modify::{settings, unknown_of_view};
use crate::bson::is_known_update;
use crate::timeline::{BreakReason, Change, Event};

/// Why a change cannot be folded; none if it can be.
#[must_use]
pub fn why_not_foldable(event: &Event<'_>) -> Option<BreakReason> {
    match &event.change {
        Change::Unknown(word) => Some(BreakReason::UnknownChange((*word).to_owned())),
        Change::Modify(description) => {
            let of_view = || unknown_of_view(description);
            let unknown = event.uuid.map_or_else(of_view, |_| settings(description).err());
            unknown.map(|field| BreakReason::UnknownChange(format!("modify: {field}")))
        }
        Change::Rename { to, .. } if is_conversion(event.collection) => {
            Some(BreakReason::NotFollowed((*to).to_owned()))
        }
        Change::Update { update, .. } if !is_known_update(update) => {
            Some(BreakReason::UnknownChange("update: a diff of an unknown form".to_owned()))
        }
        _ => None,
    }
}

/// Whether the name is that of the collection in which `convertToCapped` gathers documents, without telling of them.
/// It is like `tmp1zdFX.convertToCapped.leads`.
fn is_conversion(name: &str) -> bool {
    let rest = name.strip_prefix("tmp").and_then(|rest| rest.split_once('.'));
    rest.is_some_and(|(_, rest)| rest.starts_with("convertToCapped."))
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;
    use crate::bson::{IdKey, IdValue};
    use crate::id::{ClusterTime, CollectionUuid};

    const UUID: Option<CollectionUuid> = Some(CollectionUuid::NONE);

    #[test]
    fn a_window_closes_where_a_change_cannot_be_folded() {
        let check = |uuid: Option<CollectionUuid>,
                     collection: &str,
                     change: Change<'_>,
                     reason: Option<BreakReason>| {
            let time = ClusterTime { seconds: 1, ordinal: 1 };
            let event = Event { time, database: "x", collection, uuid, change };
            assert_eq!(why_not_foldable(&event), reason, "{event:?}");
        };
        let unknown = |what: &str| Some(BreakReason::UnknownChange(what.to_owned()));
        check(UUID, "a", Change::Unknown("shardCollection"), unknown("shardCollection"));
        check(UUID, "a", Change::Drop, None);
        check(None, "", Change::DropDatabase, None);
        check(UUID, "a", Change::Create(&rawdoc! { "new": 1 }), None);
        check(UUID, "a", Change::Modify(&rawdoc! {}), None);
        check(UUID, "a", Change::Modify(&rawdoc! { "validator": {} }), None);
        check(UUID, "a", Change::Modify(&rawdoc! { "viewOn": "b" }), unknown("modify: viewOn"));
        let keyed = rawdoc! { "index": { "name": "p_1", "forceNonUnique": true } };
        check(UUID, "a", Change::Modify(&keyed), unknown("modify: index.forceNonUnique"));
        check(None, "v", Change::Modify(&rawdoc! { "viewOn": "b", "pipeline": [] }), None);
        check(None, "v", Change::Modify(&rawdoc! { "validator": {} }), unknown("modify: validator"));
        let id = IdValue::of_document(rawdoc! { "_id": 1 }.as_bytes()).unwrap().unwrap();
        let id = IdKey::new(id).unwrap();
        let of_a_newer_server = unknown("update: a diff of an unknown form");
        for (update, reason) in [
            (rawdoc! { "$v": 2, "diff": { "u": { "a.b": 1 }, "sa": { "i": { "b": 1 } } } }, None),
            (rawdoc! { "$v": 2, "diff": { "sa": { "b": { "c": 1 } } } }, of_a_newer_server.clone()),
            (rawdoc! { "$v": 3, "diff": { "u": { "a": 1 } } }, of_a_newer_server),
        ] {
            check(UUID, "a", Change::Update { id: id.clone(), update: &update }, reason);
        }
        let rename = Change::Rename { to_database: "x", to: "leads", dropped: UUID };
        let not_followed = Some(BreakReason::NotFollowed("leads".to_owned()));
        check(UUID, "tmp1zdFX.convertToCapped.leads", rename.clone(), not_followed);
        for name in ["src", "tmp.agg_out.e77221d3", "tmpKZ7JT.renameCollection", "x.convertToCapped.y", "tmp"]
        {
            check(UUID, name, rename.clone(), None);
        }
    }
}
