//! Why a backup is kept, or let go, in one clause.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::period::date;
use super::tiers::Tier;
use crate::id::RegionName;

/// Why a backup is kept, or let go. Times are in milliseconds since 1970 UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Kept: somebody said so, for this reason.
    Held(String),
    /// Kept: it was requested later than now, so some clock is or was wrong.
    FutureDated,
    /// Kept: an operation under way reads it.
    InUse,
    /// Kept: it is not finished.
    UnderWay,
    /// Kept: there is no newer good one of its database.
    Newest,
    /// Kept: the region has no copy of a newer good one of its database.
    NewestCopy(RegionName),
    /// Kept: instants that are promised are folded from it.
    Promised,
    /// Kept: a person asked for it, and none deleted it.
    Manual,
    /// Kept: of its tiers, this one ends last, at this time.
    Serves(Tier, u64),
    /// Kept until this time though it is not good, for whoever looks into it.
    NotGood(u64),
    /// Kept: with it, more than so many percent would go in one run.
    ShareReached(u8),
    /// Kept: nothing is removed while the clocks or the keys look wrong.
    Refused,
    /// Let go: of its tiers, this one ended last, at this time.
    Ended(Tier, u64),
    /// Let go: it is not good, and was there long enough, until this time.
    NotGoodEnded(u64),
    /// Let go: a person deleted it.
    DeletedByHand,
    /// Let go: an earlier run began to remove it, so it may not be whole any more.
    RemovalBegun,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(reason) => write!(f, "held: {reason}"),
            Self::FutureDated => f.write_str("dated in the future"),
            Self::InUse => f.write_str("an operation under way uses it"),
            Self::UnderWay => f.write_str("not finished yet"),
            Self::Newest => f.write_str("newest good backup of its database"),
            Self::NewestCopy(region) => write!(f, "newest good backup that {region} has a copy of"),
            Self::Promised => f.write_str("the promised instants are folded from it"),
            Self::Manual => f.write_str("manual: kept until deleted by hand"),
            Self::Serves(tier, until) => write!(f, "{tier} until {}", date(*until)),
            Self::NotGood(until) => write!(f, "not good, kept until {}", date(*until)),
            Self::ShareReached(percent) => write!(f, "more than {percent} percent would go in one run"),
            Self::Refused => f.write_str("nothing is removed in this run"),
            Self::Ended(tier, at) => write!(f, "{tier} ended {}", date(*at)),
            Self::NotGoodEnded(at) => write!(f, "not good, was kept until {}", date(*at)),
            Self::DeletedByHand => f.write_str("deleted by hand"),
            Self::RemovalBegun => f.write_str("its removal has begun"),
        }
    }
}
