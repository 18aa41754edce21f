//! Every key in the bucket, in one enum. Names of databases and collections never become keys: they are hostile.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{Attempt, ClusterTime, OperationId, RegionName, SourceName};
use crate::operation::Trigger;

/// Where a backup lives, as the procedures lay it out: `automated/YYYY-MM-DD/<id>` or `manual/YYYY-MM-DD-HHMM/<id>`
/// (UTC, the time of the request).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupPlace {
    /// What started it.
    pub trigger: Trigger,
    /// Its id, which also carries the time.
    pub backup: OperationId,
}

/// Where a restore keeps its plan and evidence: `restores/YYYY-MM-DD/<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestorePlace(pub OperationId);

/// Where a drill keeps its plan, evidence and report: `drills/YYYY-MM-DD/<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrillPlace(pub OperationId);

/// Where a run of the pruner keeps its plan: `prunes/YYYY-MM-DD/<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrunePlace(pub OperationId);

/// Where the objects of an operation live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of a backup.
    Backup(BackupPlace),
    /// Of a restore.
    Restore(RestorePlace),
    /// Of a drill.
    Drill(DrillPlace),
    /// Of a run of the pruner.
    Prune(PrunePlace),
}

/// A key in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKey {
    /// The sealed manifest. A backup exists if and only if this object does.
    Manifest(BackupPlace),
    /// What a backup is going to read, sealed: it has names and range bounds.
    BackupPlan(BackupPlace),
    /// The work items of a backup, one JSON line each, ids only (Distributed Map reads it).
    BackupWork(BackupPlace),
    /// The documents of one range, by one attempt.
    Chunk(BackupPlace, u32, Attempt),
    /// Which attempt at a chunk counts, and what it holds.
    ChunkResult(BackupPlace, u32),
    /// Evidence that the chunks of a work item, named by its first chunk, were read back and found good.
    Verified(BackupPlace, u32),
    /// Evidence of what the proof of the chain found for the chunks of a work item.
    Proved(BackupPlace, u32),
    /// Evidence that some chunks were restored into a server of their own.
    Sampled(BackupPlace),
    /// Evidence that the chunks of a work item are in a region, and good there.
    Replicated(BackupPlace, RegionName, u32),
    /// What was backed up and proved, for dashboards.
    BackupReport(BackupPlace),
    /// The same for people.
    BackupPage(BackupPlace),
    /// What a restore is going to do, sealed.
    RestorePlan(RestorePlace),
    /// The work items of a restore.
    RestoreWork(RestorePlace),
    /// Evidence that the chunks of a work item were inserted.
    Inserted(RestorePlace, u32),
    /// Evidence that the chunks of a work item were read back from staging and found equal.
    Validated(RestorePlace, u32),
    /// What a drill is going to do, sealed.
    DrillPlan(DrillPlace),
    /// The work items of a drill.
    DrillWork(DrillPlace),
    /// Evidence of what a drill found for the chunks of a work item.
    Rehearsed(DrillPlace, u32),
    /// What a drill found, for dashboards.
    DrillReport(DrillPlace),
    /// The same for people.
    DrillPage(DrillPlace),
    /// What the pruner is going to keep and to remove, and why, sealed: it has names.
    PrunePlan(PrunePlace),
    /// The row of an operation, sealed: what the catalog is rebuilt from.
    Record(Place),
    /// The changes of a source from an instant on, by one attempt.
    Slice(SourceName, ClusterTime, Attempt),
    /// That the timeline cannot be followed from one instant to another, sealed; the number stands for whom it concerns.
    Break(SourceName, ClusterTime, ClusterTime, u64),
    /// The owner's checks of restored data.
    Checks,
}

/// Objects that are listed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// Of one operation.
    Of(Place),
    /// Of every backup that a schedule started.
    Automated,
    /// Of every backup that a person started.
    Manual,
    /// Of every restore.
    Restores,
    /// Of every drill.
    Drills,
    /// Of every run of the pruner.
    Prunes,
    /// The slices and breaks of a source.
    Timeline(SourceName),
}

impl ObjectKey {
    /// The key as S3 knows it.
    pub fn to_path(&self) -> Result<String> {
        Ok(match self {
            Self::Manifest(place) => format!("{}/manifest.json.sealed", place.prefix()?),
            Self::BackupPlan(place) => format!("{}/plan.sealed", place.prefix()?),
            Self::BackupWork(place) => format!("{}/plan.jsonl", place.prefix()?),
            Self::Chunk(place, ordinal, attempt) => format!("{}/chunks/{ordinal}-{attempt}", place.prefix()?),
            Self::ChunkResult(place, ordinal) => format!("{}/results/{ordinal}.json", place.prefix()?),
            Self::Verified(place, first) => format!("{}/verified/{first}.json", place.prefix()?),
            Self::Proved(place, first) => format!("{}/proved/{first}.json", place.prefix()?),
            Self::Sampled(place) => format!("{}/sampled.json", place.prefix()?),
            Self::Replicated(place, region, first) => {
                format!("{}/replicated/{region}/{first}.json", place.prefix()?)
            }
            Self::BackupReport(place) => format!("{}/report.json", place.prefix()?),
            Self::BackupPage(place) => format!("{}/report.html", place.prefix()?),
            Self::RestorePlan(place) => format!("{}/plan.sealed", place.prefix()?),
            Self::RestoreWork(place) => format!("{}/plan.jsonl", place.prefix()?),
            Self::Inserted(place, first) => format!("{}/inserted/{first}.json", place.prefix()?),
            Self::Validated(place, first) => format!("{}/validated/{first}.json", place.prefix()?),
            Self::DrillPlan(place) => format!("{}/plan.sealed", place.prefix()?),
            Self::DrillWork(place) => format!("{}/plan.jsonl", place.prefix()?),
            Self::Rehearsed(place, first) => format!("{}/rehearsed/{first}.json", place.prefix()?),
            Self::DrillReport(place) => format!("{}/report.json", place.prefix()?),
            Self::DrillPage(place) => format!("{}/report.html", place.prefix()?),
            Self::PrunePlan(place) => format!("{}/plan.sealed", place.prefix()?),
            Self::Record(place) => format!("{}/record.sealed", place.prefix()?),
            Self::Slice(source, from, attempt) => {
                let day = date(u64::from(from.seconds) * 1000, "%Y/%m/%d")?;
                format!("timeline/{source}/{day}/{}.{}-{attempt}", from.seconds, from.ordinal)
            }
            Self::Break(source, from, to, whom) => {
                let stretch = format!("{}.{}-{}.{}", from.seconds, from.ordinal, to.seconds, to.ordinal);
                format!("timeline/{source}/breaks/{stretch}-{whom:016x}.sealed")
            }
            Self::Checks => "configuration/checks.json".to_owned(),
        })
    }

    /// The key of this path, if it is one that the catalog is rebuilt from: a manifest, a record, a slice, a break.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let found = Self::read_path(path)?;
        (found.to_path().ok()? == path).then_some(found) // one key has one spelling
    }

    fn read_path(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        match *parts.as_slice() {
            ["timeline", source, "breaks", file] => {
                let mut fields = file.strip_suffix(".sealed")?.splitn(3, '-');
                let (from, to) = (instant(fields.next()?)?, instant(fields.next()?)?);
                let whom = u64::from_str_radix(fields.next()?, 16).ok()?;
                Some(Self::Break(source.parse().ok()?, from, to, whom))
            }
            ["timeline", source, _, _, _, file] => {
                let (from, attempt) = file.split_once('-')?;
                Some(Self::Slice(source.parse().ok()?, instant(from)?, attempt.parse().ok()?))
            }
            [top, _, id, file] => {
                let place = Place::read(top, id.parse().ok()?)?;
                match (file, place) {
                    ("record.sealed", place) => Some(Self::Record(place)),
                    ("manifest.json.sealed", Place::Backup(place)) => Some(Self::Manifest(place)),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// `SECONDS.ORDINAL`.
fn instant(text: &str) -> Option<ClusterTime> {
    let (seconds, ordinal) = text.split_once('.')?;
    Some(ClusterTime { seconds: seconds.parse().ok()?, ordinal: ordinal.parse().ok()? })
}

impl Prefix {
    /// What the paths begin with.
    pub fn to_path(&self) -> Result<String> {
        Ok(match self {
            Self::Of(place) => format!("{}/", place.prefix()?),
            Self::Automated => "automated/".to_owned(),
            Self::Manual => "manual/".to_owned(),
            Self::Restores => "restores/".to_owned(),
            Self::Drills => "drills/".to_owned(),
            Self::Prunes => "prunes/".to_owned(),
            Self::Timeline(source) => format!("timeline/{source}/"),
        })
    }
}

impl Place {
    fn prefix(&self) -> Result<String> {
        match self {
            Self::Backup(place) => place.prefix(),
            Self::Restore(place) => place.prefix(),
            Self::Drill(place) => place.prefix(),
            Self::Prune(place) => place.prefix(),
        }
    }

    fn read(top: &str, id: OperationId) -> Option<Self> {
        let backup = |trigger| Self::Backup(BackupPlace { trigger, backup: id });
        match top {
            "automated" => Some(backup(Trigger::Automated)),
            "manual" => Some(backup(Trigger::Manual)),
            "restores" => Some(Self::Restore(RestorePlace(id))),
            "drills" => Some(Self::Drill(DrillPlace(id))),
            "prunes" => Some(Self::Prune(PrunePlace(id))),
            _ => None,
        }
    }
}

impl BackupPlace {
    fn prefix(&self) -> Result<String> {
        let requested = self.backup.requested_millis();
        Ok(match self.trigger {
            Trigger::Automated => format!("automated/{}/{}", date(requested, "%Y-%m-%d")?, self.backup),
            Trigger::Manual => format!("manual/{}/{}", date(requested, "%Y-%m-%d-%H%M")?, self.backup),
        })
    }
}

impl RestorePlace {
    fn prefix(&self) -> Result<String> {
        Ok(format!("restores/{}/{}", date(self.0.requested_millis(), "%Y-%m-%d")?, self.0))
    }
}

impl DrillPlace {
    fn prefix(&self) -> Result<String> {
        Ok(format!("drills/{}/{}", date(self.0.requested_millis(), "%Y-%m-%d")?, self.0))
    }
}

impl PrunePlace {
    fn prefix(&self) -> Result<String> {
        Ok(format!("prunes/{}/{}", date(self.0.requested_millis(), "%Y-%m-%d")?, self.0))
    }
}

/// The date of a time in milliseconds since 1970 UTC.
fn date(millis: u64, form: &str) -> Result<String> {
    let time = i64::try_from(millis).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    let time =
        time.ok_or_else(|| Error::new(ErrorKind::Invalid, "place an operation of an impossible date"))?;
    Ok(time.to_zoned(TimeZone::UTC).strftime(form).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_where_the_procedures_say() {
        // 2026-11-22 02:00:07 UTC
        let id = |tail: u8| {
            let mut bytes = [0; 16];
            bytes[..6].copy_from_slice(&1_795_312_807_000_u64.to_be_bytes()[2..]);
            bytes[15] = tail;
            OperationId::from_bytes(bytes)
        };
        let place = |trigger| BackupPlace { trigger, backup: id(1) };
        let check = |key: ObjectKey, expected: &str| {
            let path = key.to_path().unwrap();
            assert_eq!(path.replace(&id(1).to_string(), "ID"), expected);
        };
        check(ObjectKey::Manifest(place(Trigger::Automated)), "automated/2026-11-22/ID/manifest.json.sealed");
        check(ObjectKey::BackupWork(place(Trigger::Manual)), "manual/2026-11-22-0200/ID/plan.jsonl");
        check(
            ObjectKey::ChunkResult(place(Trigger::Manual), 12),
            "manual/2026-11-22-0200/ID/results/12.json",
        );
        check(ObjectKey::RestorePlan(RestorePlace(id(1))), "restores/2026-11-22/ID/plan.sealed");
        let slice = |seconds, ordinal| {
            let attempt = id(1).to_string().parse().unwrap();
            ObjectKey::Slice("main".parse().unwrap(), ClusterTime { seconds, ordinal }, attempt)
        };
        check(slice(1_795_312_807, 3), "timeline/main/2026/11/22/1795312807.3-ID");
        check(slice(1_795_305_599, 1), "timeline/main/2026/11/21/1795305599.1-ID");
        let lost = ObjectKey::Break(
            "main".parse().unwrap(),
            ClusterTime { seconds: 7, ordinal: 1 },
            ClusterTime { seconds: 9, ordinal: 2 },
            255,
        );
        check(lost, "timeline/main/breaks/7.1-9.2-00000000000000ff.sealed");
        let record = ObjectKey::Record(Place::Drill(DrillPlace(id(1))));
        check(record, "drills/2026-11-22/ID/record.sealed");
        for key in [slice(1_795_312_807, 3), lost, record, ObjectKey::Manifest(place(Trigger::Manual))] {
            let path = key.to_path().unwrap();
            assert_eq!(ObjectKey::from_path(&path), Some(key));
            for other in
                [format!("{path}x"), format!("/{path}"), path.replace("2026", "2025"), path.to_lowercase()]
            {
                assert!(other == path || ObjectKey::from_path(&other).is_none(), "{other}");
            }
        }
        check(slice(0, 0), "timeline/main/1970/01/01/0.0-ID");
        check(slice(u32::MAX, u32::MAX), "timeline/main/2106/02/07/4294967295.4294967295-ID");
        assert!(ObjectKey::RestorePlan(RestorePlace(OperationId::from_bytes([0xff; 16]))).to_path().is_err());
    }
}
