//! The small clear header of every sealed object, and the context that binds an object to its place.
//!
//! ```text
//!  8  "NIGHTSAF"
//!  2  length c of the context, big-endian
//!  c  context (below); also what the sealing is bound to
//!  2  length w of the wrapped key, big-endian
//!  w  the data key as KMS wrapped it
//!  …  Cobblestone-256 message
//!
//! context:  2 format version · 1 kind · 16 operation id · 16 collection UUID · 4 ordinal · 8 cluster time
//!           · 1 length s · s source name                                            (integers big-endian)
//! ```
//!
//! The context stands in clear so that an object says by itself what it is; a reader compares it with what the
//! authenticated manifest leads it to expect, so objects cannot be swapped within or between backups.

use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::id::{Attempt, ClusterTime, CollectionUuid, OperationId, SourceName};

/// The version written, and the only one read so far.
pub const FORMAT_VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"NIGHTSAF";
/// AWS KMS gives less than 400 bytes for a 32-byte key; a hostile length ends here.
const WRAPPED_KEY_BYTES_MAX: usize = 2048;
const CONTEXT_FIXED_BYTES: usize = 2 + 1 + 16 + 16 + 4 + 8 + 1;

/// What a sealed object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// Documents of one range.
    Chunk,
    /// The list of a backup's objects and metadata.
    Manifest,
    /// What a backup or restore is going to do.
    Plan,
    /// Changes of one stretch of the timeline.
    Slice,
    /// A row of the catalog.
    Record,
}

impl ObjectKind {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Chunk => 1,
            Self::Manifest => 2,
            Self::Plan => 3,
            Self::Slice => 4,
            Self::Record => 5,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Chunk),
            2 => Some(Self::Manifest),
            3 => Some(Self::Plan),
            4 => Some(Self::Slice),
            5 => Some(Self::Record),
            _ => None,
        }
    }

    /// The word that stands in the encryption context of KMS, where policies can tell the kinds apart.
    #[must_use]
    pub const fn purpose(self) -> &'static str {
        match self {
            Self::Chunk => "chunk",
            Self::Manifest => "manifest",
            Self::Plan => "plan",
            Self::Slice => "slice",
            Self::Record => "record",
        }
    }
}

/// Where an object belongs. Bound into its sealing, and into the wrapping of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectContext {
    /// What it is.
    pub kind: ObjectKind,
    /// The protected cluster.
    pub source: SourceName,
    /// The backup or restore it belongs to; for a slice, which belongs to none, the attempt that wrote it.
    pub operation: OperationId,
    /// The collection, for a chunk; else [`CollectionUuid::NONE`].
    pub collection: CollectionUuid,
    /// The chunk's number in its backup; else 0.
    pub ordinal: u32,
    /// The instant the documents were read at, or the first one of a slice; 0 where there is none (a fuzzy scan, a
    /// manifest, a plan).
    pub cluster_time: ClusterTime,
}

impl ObjectContext {
    /// The context of an object that belongs to a whole operation.
    #[must_use]
    pub fn of_operation(kind: ObjectKind, source: SourceName, operation: OperationId) -> Self {
        Self {
            kind,
            source,
            operation,
            collection: CollectionUuid::NONE,
            ordinal: 0,
            cluster_time: ClusterTime { seconds: 0, ordinal: 0 },
        }
    }

    /// The context of the slice that begins with `from` and was written by the attempt `slice`.
    #[must_use]
    pub fn of_slice(source: SourceName, slice: Attempt, from: ClusterTime) -> Self {
        let writer = OperationId::from_bytes(slice.to_bytes());
        Self { cluster_time: from, ..Self::of_operation(ObjectKind::Slice, source, writer) }
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let source = self.source.as_str().as_bytes();
        let mut out = Vec::with_capacity(CONTEXT_FIXED_BYTES + source.len());
        out.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
        out.push(self.kind.to_byte());
        out.extend_from_slice(&self.operation.to_bytes());
        out.extend_from_slice(&self.collection.0);
        out.extend_from_slice(&self.ordinal.to_be_bytes());
        out.extend_from_slice(&self.cluster_time.to_u64().to_be_bytes());
        out.push(u8::try_from(source.len()).unwrap_or(u8::MAX)); // a source name has at most 40 characters
        out.extend_from_slice(source);
        out
    }

    fn from_bytes(mut bytes: &[u8]) -> Result<Self> {
        let version = u16::from_be_bytes(take(&mut bytes)?);
        if version != FORMAT_VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("read an object of format version {version}"),
            )
            .hint("this release reads version 1; a newer Nightsafe wrote it"));
        }
        let [kind] = take(&mut bytes)?;
        let kind = ObjectKind::from_byte(kind).ok_or_else(|| corrupt("read a header: unknown kind"))?;
        let operation = OperationId::from_bytes(take(&mut bytes)?);
        let collection = CollectionUuid(take(&mut bytes)?);
        let ordinal = u32::from_be_bytes(take(&mut bytes)?);
        let seconds = u32::from_be_bytes(take(&mut bytes)?);
        let cluster_time = ClusterTime { seconds, ordinal: u32::from_be_bytes(take(&mut bytes)?) };
        let [source_length] = take(&mut bytes)?;
        let source = std::str::from_utf8(bytes)
            .ok()
            .filter(|source| source.len() == usize::from(source_length))
            .and_then(|source| source.parse().ok())
            .ok_or_else(|| corrupt("read a header: bad source name"))?;
        Ok(Self { kind, source, operation, collection, ordinal, cluster_time })
    }

    /// The name and value pairs KMS binds the data key to. No secrets: they stand in `CloudTrail` in clear.
    #[must_use]
    pub fn encryption_context(&self) -> [(&'static str, String); 4] {
        [
            ("nightsafe:format", FORMAT_VERSION.to_string()),
            ("nightsafe:source", self.source.to_string()),
            ("nightsafe:operation", self.operation.to_string()),
            ("nightsafe:purpose", self.kind.purpose().to_owned()),
        ]
    }
}

/// The clear header of a sealed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the object says it belongs.
    pub context: ObjectContext,
    /// The data key as KMS wrapped it.
    pub wrapped_key: Vec<u8>,
}

impl Header {
    /// The longest possible header, in bytes: enough to fetch for reading one.
    pub const BYTES_MAX: u64 =
        (8 + 2 + CONTEXT_FIXED_BYTES + SourceName::LENGTH_MAX + 2 + WRAPPED_KEY_BYTES_MAX) as u64;

    /// The header's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let context = self.context.to_bytes();
        let too_long = |_| Error::new(ErrorKind::Internal, "write a header: a part is too long");
        let mut out = Vec::with_capacity(12 + context.len() + self.wrapped_key.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&u16::try_from(context.len()).map_err(too_long)?.to_be_bytes());
        out.extend_from_slice(&context);
        out.extend_from_slice(&u16::try_from(self.wrapped_key.len()).map_err(too_long)?.to_be_bytes());
        out.extend_from_slice(&self.wrapped_key);
        Ok(out)
    }

    /// Reads the header at the start of an object; gives the length it takes.
    pub fn from_bytes(object: &[u8]) -> Result<(Self, usize)> {
        let mut rest = object;
        if take::<8>(&mut rest)? != *MAGIC {
            return Err(corrupt("read a header: this is not an object of Nightsafe"));
        }
        let context = ObjectContext::from_bytes(take_counted(
            &mut rest,
            CONTEXT_FIXED_BYTES + SourceName::LENGTH_MAX,
        )?)?;
        let wrapped_key = take_counted(&mut rest, WRAPPED_KEY_BYTES_MAX)?.to_vec();
        Ok((Self { context, wrapped_key }, object.len() - rest.len()))
    }

    /// Reads the header and checks that the object is the one that belongs at `expected`.
    pub fn expect(object: &[u8], expected: &ObjectContext) -> Result<(Self, usize)> {
        let (header, length) = Self::from_bytes(object)?;
        if header.context == *expected {
            Ok((header, length))
        } else {
            Err(corrupt("read a header: the object belongs to another place"))
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk().ok_or_else(|| corrupt("read a header: cut short"))?;
    *bytes = tail;
    Ok(*head)
}

fn take_counted<'a>(bytes: &mut &'a [u8], length_max: usize) -> Result<&'a [u8]> {
    let length = usize::from(u16::from_be_bytes(take(bytes)?));
    let cut = bytes.split_at_checked(length).filter(|_| length <= length_max);
    let (head, tail) = cut.ok_or_else(|| corrupt("read a header: cut short"))?;
    *bytes = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        let context = ObjectContext {
            kind: ObjectKind::Chunk,
            source: "prod-eu".parse().unwrap(),
            operation: OperationId::from_bytes([3; 16]),
            collection: CollectionUuid([4; 16]),
            ordinal: 77,
            cluster_time: ClusterTime { seconds: 1_790_000_000, ordinal: 5 },
        };
        Header { context, wrapped_key: vec![9; 184] }
    }

    #[test]
    fn a_header_comes_back_and_tells_its_length() {
        let mut bytes = header().to_bytes().unwrap();
        let length = bytes.len();
        bytes.extend_from_slice(b"the rest");
        assert_eq!(Header::from_bytes(&bytes).unwrap(), (header(), length));
        for cut in 0..length {
            assert!(Header::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn an_object_of_another_place_is_refused() {
        let bytes = header().to_bytes().unwrap();
        let differ: [fn(&mut ObjectContext); 6] = [
            |c| c.kind = ObjectKind::Plan,
            |c| c.source = "prod-us".parse().unwrap(),
            |c| c.operation = OperationId::from_bytes([5; 16]),
            |c| c.collection = CollectionUuid::NONE,
            |c| c.ordinal = 78,
            |c| c.cluster_time.ordinal = 6,
        ];
        assert!(Header::expect(&bytes, &header().context).is_ok());
        for change in differ {
            let mut expected = header().context;
            change(&mut expected);
            assert_eq!(Header::expect(&bytes, &expected).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_slice_is_bound_to_its_source_its_attempt_and_its_first_instant() {
        let from = ClusterTime { seconds: 1_790_000_000, ordinal: 5 };
        let slice: Attempt = OperationId::from_bytes([3; 16]).to_string().parse().unwrap();
        let context = ObjectContext::of_slice("prod-eu".parse().unwrap(), slice, from);
        let bytes = Header { context: context.clone(), wrapped_key: vec![9; 184] }.to_bytes().unwrap();
        assert_eq!(Header::expect(&bytes, &context).unwrap().0.context, context);
        assert_eq!(context.encryption_context()[2].1, slice.to_string());
        assert_eq!(context.encryption_context()[3].1, "slice");
        for other in [
            ObjectContext::of_slice("prod-us".parse().unwrap(), slice, from),
            ObjectContext::of_slice("prod-eu".parse().unwrap(), slice, from.next()),
            ObjectContext::of_slice("prod-eu".parse().unwrap(), Attempt::generate(0).unwrap(), from),
            ObjectContext { kind: ObjectKind::Plan, ..context },
        ] {
            assert_eq!(Header::expect(&bytes, &other).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut bytes = header().to_bytes().unwrap();
        bytes[11] = 2;
        assert_eq!(Header::from_bytes(&bytes).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), valid in any::<bool>()) {
            let object = if valid { [MAGIC.as_slice(), &bytes].concat() } else { bytes };
            let _ = Header::from_bytes(&object);
        }
    }
}
