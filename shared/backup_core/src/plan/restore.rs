//! What a restore will do, item by item with the reason, before anything is touched; and the swap as steps that
//! follow from what is there now, so that it can be repeated, or taken back, after any interruption.

use std::collections::HashMap;

use bson::RawDocumentBuf;
use serde::{Deserialize, Serialize};

use crate::bson::base64_document;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Consistency, Manifest, WorkItem};
use crate::id::{ClusterTime, CollectionUuid, OperationId};
use crate::namespace::{Label, Namespace, NamespaceKind, OwnName, same_fields};
use crate::plan::point_in_time::PointInTime;

/// The plan of a restore. Stored sealed: it holds names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestorePlan {
    /// The backup it restores.
    pub backup: OperationId,
    /// The database that is written.
    pub database: String,
    /// Whether the backup is of one instant.
    pub consistency: Consistency,
    /// The T of the backup's plan.
    pub cluster_time: ClusterTime,
    /// What is restored.
    pub items: Vec<RestoreItem>,
    /// What is live, not in the backup, and therefore moved aside (a full restore only).
    pub extras: Vec<ExtraItem>,
    /// What cannot be restored or moved, and why.
    pub left_out: Vec<LeftOut>,
    /// The work items, over the ordinals of the backup's chunks, or of the units that are folded.
    pub work: Vec<WorkItem>,
    /// The instant it restores to, and what is folded for it; none restores the backup as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<PointInTime>,
}

/// A collection or view that is restored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreItem {
    /// Its number in the plan; own names carry it.
    pub number: u32,
    /// The name it gets.
    pub name: String,
    /// What it is.
    pub kind: NamespaceKind,
    /// How exactly the backup holds it.
    pub label: Label,
    /// Documents.
    pub documents: u64,
    /// Bytes of BSON.
    pub bson_bytes: u64,
    /// The options it gets; for a view its whole definition.
    #[serde(with = "base64_document")]
    pub options: RawDocumentBuf,
    /// What is live under that name now.
    pub live: Option<Live>,
    /// The staging collection, once it is created.
    pub staging: Option<CollectionUuid>,
}

/// Something live that is in the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    /// What it is.
    pub kind: NamespaceKind,
    /// Its identity; none for a view.
    pub uuid: Option<CollectionUuid>,
    /// Its options; for a view its whole definition, so that it can be brought back.
    #[serde(with = "base64_document")]
    pub options: RawDocumentBuf,
}

/// Something live that is not in the backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtraItem {
    /// Its number in the plan.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub live: Live,
}

/// Something that stays out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl Live {
    fn of(namespace: &Namespace) -> Self {
        Self { kind: namespace.kind, uuid: namespace.uuid, options: namespace.options.clone() }
    }
}

impl RestorePlan {
    /// How many live collections and views it replaces or moves aside.
    #[must_use]
    pub fn replaces(&self) -> usize {
        self.items.iter().filter(|item| item.live.is_some()).count() + self.extras.len()
    }

    /// The item with this name.
    pub fn item(&self, name: &str) -> Result<&RestoreItem> {
        self.items
            .iter()
            .find(|item| item.name == name)
            .ok_or_else(|| Error::new(ErrorKind::Internal, format!("find {name:?} in the restore's plan")))
    }
}

/// Plans the restore of `manifest` (or of `collections` of it) over what is live. `full` also moves aside what is
/// live but not in the backup.
pub fn plan(
    manifest: &Manifest,
    collections: &[String],
    full: bool,
    live: &[Namespace],
    work: Vec<WorkItem>,
) -> Result<RestorePlan> {
    let wanted = |name: &str| collections.is_empty() || collections.iter().any(|wanted| wanted == name);
    for name in collections {
        if !manifest.namespaces.iter().any(|namespace| namespace.namespace.name == *name) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("restore {name:?}: not in backup {}", manifest.backup),
            )
            .hint(format!("`nightsafe show {}` lists what is in it", manifest.backup)));
        }
    }
    let live: HashMap<&str, &Namespace> = live
        .iter()
        .filter(|it| OwnName::parse(&it.name).is_none())
        .map(|it| (it.name.as_str(), it))
        .collect();
    let mut plan = RestorePlan {
        backup: manifest.backup,
        database: manifest.database.clone(),
        consistency: manifest.consistency,
        cluster_time: manifest.cluster_time,
        items: Vec::new(),
        extras: Vec::new(),
        left_out: Vec::new(),
        work,
        at: None,
    };
    let mut numbers = 0_u32..;
    for entry in manifest.namespaces.iter().filter(|entry| wanted(&entry.namespace.name)) {
        let name = &entry.namespace.name;
        if entry.label == Label::NotCaptured {
            let reason = entry.reason.clone().unwrap_or_default();
            plan.left_out
                .push(LeftOut { name: name.clone(), reason: format!("not in the backup: {reason}") });
            continue;
        }
        let in_the_way = live.get(name.as_str()).map(|namespace| Live::of(namespace));
        if in_the_way.as_ref().is_some_and(|live| live.kind == NamespaceKind::Timeseries) {
            return Err(cannot_rename(name));
        }
        plan.items.push(RestoreItem {
            number: numbers.next().unwrap_or(u32::MAX),
            name: name.clone(),
            kind: entry.namespace.kind,
            label: entry.label,
            documents: entry.chunks.iter().map(|chunk| chunk.stored.documents).sum(),
            bson_bytes: entry.chunks.iter().map(|chunk| chunk.stored.bson_bytes).sum(),
            options: entry.namespace.options.clone(),
            live: in_the_way,
            staging: None,
        });
    }
    if full {
        let mut extras: Vec<_> = live.values().filter(|it| !plan.knows(&it.name)).collect();
        extras.sort_by(|left, right| left.name.cmp(&right.name));
        for extra in extras {
            if extra.kind == NamespaceKind::Timeseries {
                let reason =
                    "live, not in the backup, and a time-series collection cannot be moved aside".to_owned();
                plan.left_out.push(LeftOut { name: extra.name.clone(), reason });
            } else if !extra.name.starts_with("system.") {
                let number = numbers.next().unwrap_or(u32::MAX);
                plan.extras.push(ExtraItem { number, name: extra.name.clone(), live: Live::of(extra) });
            }
        }
    }
    Ok(plan)
}

impl RestorePlan {
    fn knows(&self, name: &str) -> bool {
        self.items.iter().any(|item| item.name == name) || self.left_out.iter().any(|left| left.name == name)
    }
}

fn cannot_rename(name: &str) -> Error {
    Error::new(ErrorKind::Refused, format!("restore {name:?}: a time-series collection of this name is live"))
        .hint("MongoDB cannot rename a time-series collection, so it cannot be kept aside; drop it first")
}

/// One change of the swap. Each is atomic on the server, but for the filling of a time series, which is repeatable.
#[derive(Clone, Debug, PartialEq)]
pub enum SwapStep {
    /// Rename a collection. Whatever a writer created under the new name meanwhile is moved aside.
    Rename {
        /// The name it has.
        from: String,
        /// The name it gets.
        to: String,
    },
    /// Drop a view (its definition is in the plan).
    DropView(String),
    /// Create a view.
    CreateView(String, RawDocumentBuf),
    /// Create a time-series collection and fill it with the buckets in staging.
    FillTimeseries(Filling),
    /// Drop a time-series collection that was being filled, and the mark that says so.
    EmptyTimeseries(Filling),
}

/// A time-series collection that is filled. It cannot be renamed, so it is made under its own name; the mark, an
/// empty collection, says that it is ours to drop until the whole restore is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Filling {
    /// Its name.
    pub name: String,
    /// Its options.
    pub options: RawDocumentBuf,
    /// Where its buckets are.
    pub staging: String,
    /// Where they go once it is filled: it may still have to be emptied and filled again.
    pub filled: String,
    /// The name of the mark.
    pub mark: String,
}

impl Filling {
    fn of(restore: OperationId, item: &RestoreItem) -> Self {
        Self {
            name: item.name.clone(),
            options: item.options.clone(),
            staging: OwnName::Staging(restore, item.number).to_string(),
            filled: OwnName::Filled(restore, item.number).to_string(),
            mark: OwnName::Filling(restore, item.number).to_string(),
        }
    }
}

/// The steps that concern one name, in their order. Those of different names do not depend on each other.
pub type NameSteps = Vec<SwapStep>;

/// The steps that are left to make the restored state live, given what is there now. None are left once it is.
pub fn swap_steps(restore: OperationId, plan: &RestorePlan, now: &[Namespace]) -> Result<Vec<NameSteps>> {
    let here: Here<'_> = now.iter().map(|it| (it.name.as_str(), it)).collect();
    let mut all = Vec::new();
    for item in &plan.items {
        all.push(item_steps(restore, item, &here)?);
    }
    for extra in &plan.extras {
        let live = here.get(extra.name.as_str()).filter(|_| !is_aside(restore, extra.number, &here));
        let Some(live) = live else { continue };
        if extra.live.uuid != live.uuid {
            return Err(changed_meanwhile(&extra.name));
        }
        all.push(vec![make_way(restore, extra.number, &extra.name, live.kind)?]);
    }
    all.retain(|steps| !steps.is_empty());
    Ok(all)
}

type Here<'a> = HashMap<&'a str, &'a Namespace>;

/// Whether what was live is kept aside already: then what has its name now was created by a writer since.
fn is_aside(restore: OperationId, number: u32, here: &Here<'_>) -> bool {
    here.contains_key(OwnName::Aside(restore, number).to_string().as_str())
}

fn item_steps(restore: OperationId, item: &RestoreItem, here: &Here<'_>) -> Result<NameSteps> {
    let mut steps = Vec::new();
    let live = here.get(item.name.as_str()).copied();
    let staging = OwnName::Staging(restore, item.number).to_string();
    let staged = here.contains_key(staging.as_str());
    let filling = Filling::of(restore, item);
    let is_done = live.is_some_and(|live| match item.kind {
        NamespaceKind::View => live.kind == NamespaceKind::View && same_fields(&live.options, &item.options),
        NamespaceKind::Collection => live.uuid.is_some() && live.uuid == item.staging,
        // Its staging has another name after its buckets were proved to be there.
        NamespaceKind::Timeseries => live.kind == item.kind && !staged,
    });
    if is_done {
        return Ok(steps);
    }
    if item.kind != NamespaceKind::View && !staged && !here.contains_key(filling.filled.as_str()) {
        return Err(Error::new(
            ErrorKind::ValidationFailed,
            format!("swap in {:?}: its staging vanished", item.name),
        )
        .hint("somebody dropped or renamed it; start the restore again"));
    }
    let is_ours = item.kind == NamespaceKind::Timeseries && here.contains_key(filling.mark.as_str());
    if let Some(live) = live.filter(|_| !is_ours && !is_aside(restore, item.number, here)) {
        if item.live.as_ref().is_none_or(|planned| planned.uuid != live.uuid) {
            return Err(changed_meanwhile(&item.name));
        }
        steps.push(make_way(restore, item.number, &item.name, live.kind)?);
    }
    steps.push(match item.kind {
        NamespaceKind::View => SwapStep::CreateView(item.name.clone(), item.options.clone()),
        NamespaceKind::Collection => SwapStep::Rename { from: staging, to: item.name.clone() },
        NamespaceKind::Timeseries => SwapStep::FillTimeseries(filling),
    });
    Ok(steps)
}

fn changed_meanwhile(name: &str) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!("swap in {name:?}: what is live under this name is not what was planned for"),
    )
    .hint("the database changed while the restore ran; start it again")
}

fn make_way(restore: OperationId, number: u32, name: &str, kind: NamespaceKind) -> Result<SwapStep> {
    match kind {
        NamespaceKind::Collection => {
            Ok(SwapStep::Rename { from: name.to_owned(), to: OwnName::Aside(restore, number).to_string() })
        }
        NamespaceKind::View => Ok(SwapStep::DropView(name.to_owned())),
        NamespaceKind::Timeseries => Err(cannot_rename(name)),
    }
}

/// The steps that bring back what was live before a swap that did not end, given what is there now. Only what this
/// restore made is taken away.
#[must_use]
pub fn swap_back_steps(restore: OperationId, plan: &RestorePlan, now: &[Namespace]) -> Vec<NameSteps> {
    let here: Here<'_> = now.iter().map(|it| (it.name.as_str(), it)).collect();
    let mut all = Vec::new();
    for item in &plan.items {
        let mut steps = Vec::new();
        let live = here.get(item.name.as_str()).copied();
        let filling = Filling::of(restore, item);
        match (item.kind, live) {
            (NamespaceKind::Collection, Some(live)) if live.uuid.is_some() && live.uuid == item.staging => {
                steps.push(SwapStep::Rename { from: item.name.clone(), to: filling.staging });
            }
            (NamespaceKind::Timeseries, _) if here.contains_key(filling.mark.as_str()) => {
                steps.push(SwapStep::EmptyTimeseries(filling));
            }
            (NamespaceKind::View, Some(live))
                if is_view(live, &item.options) && !was_view(item, &item.options) =>
            {
                steps.push(SwapStep::DropView(item.name.clone()));
            }
            _ => {}
        }
        steps.extend(
            item.live.as_ref().and_then(|was| bring_back(restore, item.number, &here, &item.name, was)),
        );
        all.push(steps);
    }
    for extra in &plan.extras {
        all.extend(bring_back(restore, extra.number, &here, &extra.name, &extra.live).map(|step| vec![step]));
    }
    all.retain(|steps| !steps.is_empty());
    all
}

fn is_view(namespace: &Namespace, definition: &RawDocumentBuf) -> bool {
    namespace.kind == NamespaceKind::View && same_fields(&namespace.options, definition)
}

fn was_view(item: &RestoreItem, definition: &RawDocumentBuf) -> bool {
    item.live
        .as_ref()
        .is_some_and(|was| was.kind == NamespaceKind::View && same_fields(&was.options, definition))
}

fn bring_back(
    restore: OperationId,
    number: u32,
    here: &Here<'_>,
    name: &str,
    was: &Live,
) -> Option<SwapStep> {
    if was.kind == NamespaceKind::View {
        let there = here.get(name).is_some_and(|it| is_view(it, &was.options));
        return (!there).then(|| SwapStep::CreateView(name.to_owned(), was.options.clone()));
    }
    let from = OwnName::Aside(restore, number).to_string();
    is_aside(restore, number, here).then(|| SwapStep::Rename { from, to: name.to_owned() })
}
