//! Every key in the bucket, in one enum. Names of databases and collections never become keys: they are hostile.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{Attempt, ClusterTime, OperationId, SourceName};
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
    /// What was backed up and proved, for people and dashboards.
    BackupReport(BackupPlace),
    /// What a restore is going to do, sealed.
    RestorePlan(RestorePlace),
    /// The work items of a restore.
    RestoreWork(RestorePlace),
    /// Evidence that the chunks of a work item were inserted.
    Inserted(RestorePlace, u32),
    /// Evidence that the chunks of a work item were read back from staging and found equal.
    Validated(RestorePlace, u32),
    /// The changes of a source from an instant on, by one attempt.
    Slice(SourceName, ClusterTime, Attempt),
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
            Self::BackupReport(place) => format!("{}/report.json", place.prefix()?),
            Self::RestorePlan(place) => format!("{}/plan.sealed", place.prefix()?),
            Self::RestoreWork(place) => format!("{}/plan.jsonl", place.prefix()?),
            Self::Inserted(place, first) => format!("{}/inserted/{first}.json", place.prefix()?),
            Self::Validated(place, first) => format!("{}/validated/{first}.json", place.prefix()?),
            Self::Slice(source, from, attempt) => {
                let day = date(u64::from(from.seconds) * 1000, "%Y/%m/%d")?;
                format!("timeline/{source}/{day}/{}.{}-{attempt}", from.seconds, from.ordinal)
            }
        })
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
        check(slice(0, 0), "timeline/main/1970/01/01/0.0-ID");
        check(slice(u32::MAX, u32::MAX), "timeline/main/2106/02/07/4294967295.4294967295-ID");
        assert!(ObjectKey::RestorePlan(RestorePlace(OperationId::from_bytes([0xff; 16]))).to_path().is_err());
    }
}
