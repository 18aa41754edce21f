//! Identifiers and instants, parsed once at the edge and correct from then on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ulid::Ulid;

use crate::error::{Error, ErrorKind, Result};

/// Implements `serde` by way of `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($name:ty) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(|_| serde::de::Error::custom(concat!("not a ", stringify!($name))))
            }
        }
    };
}
pub(crate) use serde_as_text;

/// One operation (a backup, a restore, a drill, a run of the pruner): 26 characters that sort by the time of the request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId(Ulid);

impl OperationId {
    /// A fresh id for a request made at `now_millis` (milliseconds since 1970 UTC).
    pub fn generate(now_millis: u64) -> Result<Self> {
        Ok(Self(random_ulid(now_millis)?))
    }

    /// The id of what a schedule asks for at `slot_millis` (milliseconds since 1970 UTC): whoever is told of the same
    /// slot again comes to the same id. `what` tells apart what is asked for in the same slot.
    #[must_use]
    pub fn of_slot(slot_millis: u64, what: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in what {
            hash.update((part.len() as u64).to_be_bytes()); // so that two parts are not one that looks alike
            hash.update(part);
        }
        let (mut random, digest) = ([0_u8; 16], hash.finalize());
        random.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(Ulid::from_parts(slot_millis, u128::from_le_bytes(random)))
    }

    /// The sixteen bytes that stand in sealed objects.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_bytes()
    }

    /// The id with these sixteen bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Ulid::from_bytes(bytes))
    }

    /// When the operation was requested, in milliseconds since 1970 UTC.
    #[must_use]
    pub fn requested_millis(self) -> u64 {
        self.0.timestamp_ms()
    }
}

impl FromStr for OperationId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse_ulid(text).map(Self).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("read operation id {:?}", shorten(text)))
                .hint("an id is 26 characters, as `nightsafe list` shows it")
        })
    }
}

/// One try at writing one object. A retry re-reads documents that may have changed, so it never shares a name, a
/// key or a nonce with an earlier try.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attempt(Ulid);

impl Attempt {
    /// Stands where nothing is stored.
    pub const NONE: Self = Self(Ulid::nil());

    /// A fresh attempt.
    pub fn generate(now_millis: u64) -> Result<Self> {
        Ok(Self(random_ulid(now_millis)?))
    }

    /// The sixteen bytes that stand in sealed objects.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_bytes()
    }
}

impl FromStr for Attempt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse_ulid(text)
            .map(Self)
            .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("read attempt {:?}", shorten(text))))
    }
}

fn random_ulid(now_millis: u64) -> Result<Ulid> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random)
        .map_err(|why| Error::new(ErrorKind::Internal, "draw random bytes").because(why.to_string()))?;
    Ok(Ulid::from_parts(now_millis, u128::from_le_bytes(random)))
}

/// Strict: the canonical form only, so that one id has one spelling (and one object key).
fn parse_ulid(text: &str) -> Option<Ulid> {
    Ulid::from_string(text).ok().filter(|ulid| ulid.to_string() == text)
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

macro_rules! display_ulid {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        serde_as_text!($name);
    )*};
}
display_ulid!(OperationId, Attempt);

/// The name of a protected cluster: 1 to 40 of `a-z`, `0-9` and `-`, beginning with a letter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceName {
    /// Its characters, then zeros.
    padded: [u8; Self::LENGTH_MAX],
}

impl SourceName {
    /// The longest name, in characters.
    pub const LENGTH_MAX: usize = 40;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        unpadded(&self.padded)
    }
}

impl FromStr for SourceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        padded(text).map(|padded| Self { padded }).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("read source name {:?}", shorten(text)))
                .hint("1 to 40 of a-z, 0-9 and -, beginning with a letter")
        })
    }
}

/// An AWS region, such as `eu-west-1`: 1 to 32 of `a-z`, `0-9` and `-`, beginning with a letter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionName {
    /// Its characters, then zeros.
    padded: [u8; Self::LENGTH_MAX],
}

impl RegionName {
    /// The longest name, in characters.
    pub const LENGTH_MAX: usize = 32;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        unpadded(&self.padded)
    }
}

impl FromStr for RegionName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        padded(text).map(|padded| Self { padded }).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("read region {:?}", shorten(text)))
                .hint("a name such as eu-west-1")
        })
    }
}

/// A name of `a-z`, `0-9` and `-` that begins with a letter, and zeros behind it.
fn padded<const N: usize>(text: &str) -> Option<[u8; N]> {
    let fits = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let mut padded = [0; N];
    padded.get_mut(..text.len()).filter(|_| fits)?.copy_from_slice(text.as_bytes());
    Some(padded)
}

fn unpadded(padded: &[u8]) -> &str {
    let length = padded.iter().position(|byte| *byte == 0).unwrap_or(padded.len());
    std::str::from_utf8(padded.get(..length).unwrap_or_default()).unwrap_or_default()
}

macro_rules! display_name {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }
        serde_as_text!($name);
    )*};
}
display_name!(SourceName, RegionName);

/// A MongoDB cluster time: seconds since 1970 UTC and an ordinal within the second. Written `SECONDS,ORDINAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterTime {
    /// Whole seconds since 1970 UTC.
    pub seconds: u32,
    /// Position within the second, from 1.
    pub ordinal: u32,
}

impl ClusterTime {
    /// Both parts in one number, in order of time (the form MongoDB stores).
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        ((self.seconds as u64) << 32) | self.ordinal as u64
    }

    /// The time that [`ClusterTime::to_u64`] gave this number for.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are 32 bits each")]
    pub const fn from_u64(number: u64) -> Self {
        Self { seconds: (number >> 32) as u32, ordinal: number as u32 }
    }

    /// The second in UTC, as `YYYY-MM-DD HH:MM:SS`.
    #[must_use]
    pub fn utc(self) -> String {
        let time = jiff::Timestamp::from_second(i64::from(self.seconds)).unwrap_or_default();
        time.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// The next instant there can be.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::from_u64(self.to_u64().saturating_add(1))
    }

    /// The instant before.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self::from_u64(self.to_u64().saturating_sub(1))
    }
}

impl fmt::Display for ClusterTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.seconds, self.ordinal)
    }
}

impl FromStr for ClusterTime {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.split_once(',')
            .and_then(|(seconds, ordinal)| {
                Some(Self { seconds: seconds.parse().ok()?, ordinal: ordinal.parse().ok()? })
            })
            .filter(|time| time.to_string() == text)
            .ok_or_else(|| {
                Error::new(ErrorKind::Invalid, format!("read cluster time {:?}", shorten(text)))
                    .hint("write SECONDS,ORDINAL")
            })
    }
}
serde_as_text!(ClusterTime);

/// What a collection is for its whole life, whatever its name is. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CollectionUuid(pub [u8; 16]);

impl CollectionUuid {
    /// Stands where there is no collection: in the context of objects that belong to a whole backup.
    pub const NONE: Self = Self([0; 16]);
}

impl fmt::Display for CollectionUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for CollectionUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CollectionUuid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)
            .ok()
            .filter(|()| !text.bytes().any(|byte| byte.is_ascii_uppercase()))
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "read collection UUID"))?;
        Ok(Self(bytes))
    }
}
serde_as_text!(CollectionUuid);

/// Counts the holders of a lease: a write with an older fence than the lease's is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let id = OperationId::generate(1_790_000_000_000).unwrap();
        assert_eq!(id.to_string().parse::<OperationId>().unwrap(), id);
        assert_eq!(id.requested_millis(), 1_790_000_000_000);
        for other in [id.to_string().to_lowercase(), format!("{id} "), String::new(), "../../x".into()] {
            assert!(other.parse::<OperationId>().is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_source_name_is_safe_in_a_key() {
        for (text, good) in [
            ("main", true),
            ("prod-eu-1", true),
            ("", false),
            ("1st", false),
            ("Main", false),
            ("a/b", false),
            ("a.b", false),
            (&"a".repeat(41), false),
        ] {
            assert_eq!(text.parse::<SourceName>().is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn cluster_times_sort_as_they_are_written() {
        let early: ClusterTime = "1790000000,2".parse().unwrap();
        let late = ClusterTime { seconds: 1_790_000_000, ordinal: 11 };
        assert!(early < late && early.to_u64() < late.to_u64());
        for bad in ["1790000000", "1,2,3", "+1,2", "1, 2", "-1,2", "5000000000,1"] {
            assert!(bad.parse::<ClusterTime>().is_err(), "{bad}");
        }
    }
}
