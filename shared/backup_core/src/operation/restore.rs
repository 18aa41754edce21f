//! What only a restore has.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::id::{ClusterTime, OperationId};

/// A collection that was replaced, and the name under which it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAside {
    /// The name it had.
    pub name: String,
    /// The name it has now.
    pub aside: String,
}

/// What only a restore has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreDetail {
    /// The backup to restore; none asks for the newest good one of the database. Filled in once one is chosen.
    pub backup: Option<OperationId>,
    /// The whole database is restored: what is live but not in the backup is moved aside too.
    pub full: bool,
    /// The operator agreed that live collections are replaced.
    pub may_replace: bool,
    /// Only plan, change nothing.
    pub dry_run: bool,
    /// What was replaced and where it is kept (the first hundred).
    pub kept_aside: Vec<KeptAside>,
    /// The instant to restore to; none restores what the backup holds. Made exact once the backup is chosen.
    #[serde(default)]
    pub at: Option<RestoreTime>,
    /// Since when it waits, or waited, for its backup to come from cold storage, in milliseconds since 1970 UTC: every
    /// chunk it needs was asked for by then.
    #[serde(default)]
    pub thawing_since_millis: Option<u64>,
}

impl RestoreDetail {
    /// A request to restore the newest good backup, that replaces nothing.
    #[must_use]
    pub const fn requested(full: bool) -> Self {
        Self {
            backup: None,
            full,
            may_replace: false,
            dry_run: false,
            kept_aside: Vec::new(),
            at: None,
            thawing_since_millis: None,
        }
    }
}

/// An instant to restore to, as an operator gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreTime {
    /// The newest one that is restorable.
    Latest,
    /// This one; every change of it is in.
    At(ClusterTime),
}

impl std::str::FromStr for RestoreTime {
    type Err = Error;

    /// Reads `latest`, `SECONDS,ORDINAL`, or `YYYY-MM-DD HH:MM:SS` in UTC, which includes the whole second.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Ok(exact) = text.parse() {
            return Ok(Self::At(exact));
        }
        let civil = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]
            .iter()
            .find_map(|form| jiff::civil::DateTime::strptime(form, text).ok());
        let seconds = civil
            .and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC).ok())
            .and_then(|time| u32::try_from(time.timestamp().as_second()).ok());
        let seconds = seconds.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "read a time to restore to").hint(
                "write \"YYYY-MM-DD HH:MM:SS\" (UTC, with the whole second), SECONDS,ORDINAL, or latest",
            )
        })?;
        Ok(Self::At(ClusterTime { seconds, ordinal: u32::MAX }))
    }
}
