//! Reading ranges of a large sealed object, without fetching the rest of it.
//!
//! Every byte that comes out was authenticated at its place in this object. A range that ends where the object ends
//! also shows that the object was not cut short.

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::format::{Header, ObjectContext, ObjectKey};
use crate::ports::{DataKeys, ObjectStore};
use crate::seal::{HEADER_BYTES, RECORD_BYTES, RecordOpener, SEALED_RECORD_BYTES, plain_bytes};
use crate::settings::MIB;

use super::{READS_MAX, path};

/// The longest range, in bytes: it is in memory twice.
const RANGE_BYTES_MAX: u64 = 64 * MIB;
const RECORD: u64 = RECORD_BYTES as u64;
const SEALED_RECORD: u64 = SEALED_RECORD_BYTES as u64;

/// A sealed object whose header was read and whose key was opened.
pub(super) struct SealedRanges {
    key: ObjectKey,
    opener: RecordOpener,
    stored_bytes: u64,
    /// Where the first record begins in the object.
    records_at: u64,
    plain_bytes: u64,
}

impl SealedRanges {
    /// Opens the object at `key` if it was sealed for `context` and can have so many bytes.
    pub(super) async fn open(
        store: &dyn ObjectStore,
        keys: &dyn DataKeys,
        key: ObjectKey,
        context: &ObjectContext,
        stored_bytes: u64,
    ) -> Result<Self> {
        let mut reads = 1;
        loop {
            match Self::try_open(store, keys, key, context, stored_bytes).await {
                Err(why) if why.kind() == ErrorKind::Corrupt && reads < READS_MAX => reads += 1,
                opened => return opened.map_err(|why| why.while_doing(format!("open {}", path(key)))),
            }
        }
    }

    async fn try_open(
        store: &dyn ObjectStore,
        keys: &dyn DataKeys,
        key: ObjectKey,
        context: &ObjectContext,
        stored_bytes: u64,
    ) -> Result<Self> {
        let head_bytes = stored_bytes.min(Header::BYTES_MAX + HEADER_BYTES as u64);
        let head = fetch(store, key, 0, head_bytes).await?;
        let (header, length) = Header::expect(&head, context)?;
        let message = head.get(length..).and_then(|message| message.first_chunk::<HEADER_BYTES>());
        let message = message.ok_or_else(|| corrupt("read a header: cut short"))?;
        let header_bytes = u64::try_from(length).unwrap_or(u64::MAX);
        let plain_bytes = stored_bytes.checked_sub(header_bytes).and_then(plain_bytes);
        let plain_bytes = plain_bytes.ok_or_else(|| corrupt("no object has this length"))?;
        let data_key = keys.unwrap(&header.wrapped_key, context).await?;
        let opener = RecordOpener::new(&data_key, &context.to_bytes(), message)?;
        Ok(Self { key, opener, stored_bytes, records_at: header_bytes + HEADER_BYTES as u64, plain_bytes })
    }

    /// Bytes of plaintext in the object.
    pub(super) const fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// `length` bytes of plaintext from `offset`, exactly; `Corrupt` if there are not so many, and if they are more than
    /// belong together in anything that is stored.
    pub(super) async fn read(&self, store: &dyn ObjectStore, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut reads = 1;
        loop {
            match self.try_read(store, offset, length).await {
                Err(why) if why.kind() == ErrorKind::Corrupt && reads < READS_MAX => reads += 1,
                read => return read.map_err(|why| why.while_doing(format!("read {}", path(self.key)))),
            }
        }
    }

    async fn try_read(&self, store: &dyn ObjectStore, offset: u64, length: u64) -> Result<Vec<u8>> {
        let end = offset.checked_add(length).filter(|end| *end <= self.plain_bytes);
        let end = end.ok_or_else(|| corrupt("a range reaches beyond the end"))?;
        if length > RANGE_BYTES_MAX {
            return Err(corrupt("a range is too long"));
        }
        // Whoever reads to the end also gets the last record, even if that is empty: it shows that this is the end.
        let last_byte = if end == self.plain_bytes { end } else { end.saturating_sub(1) };
        let last = last_byte / RECORD;
        let first = (offset / RECORD).min(last);
        let from = self.records_at + first * SEALED_RECORD;
        let to = self.stored_bytes.min(self.records_at + (last + 1) * SEALED_RECORD);
        let sealed = fetch(store, self.key, from, to - from).await?;
        let mut plain = Vec::with_capacity(sealed.len());
        for (number, record) in (first..).zip(sealed.chunks(SEALED_RECORD_BYTES)) {
            self.opener.open(number, record, &mut plain)?;
        }
        let (skip, length) = (usize::try_from(offset - first * RECORD), usize::try_from(length));
        let (Ok(skip), Ok(length)) = (skip, length) else { return Err(corrupt("a range is too long")) };
        if plain.len() < skip + length {
            return Err(corrupt("fewer bytes came than there should be"));
        }
        plain.drain(..skip);
        plain.truncate(length);
        Ok(plain)
    }
}

/// A range of the stored object. That there is none is damage: something refers to it.
async fn fetch(store: &dyn ObjectStore, key: ObjectKey, offset: u64, length: u64) -> Result<Bytes> {
    store.get_range(key, offset, length).await.map_err(|why| match why.kind() {
        ErrorKind::NotFound => Error::new(ErrorKind::Corrupt, "the object is missing").because(why),
        _ => why,
    })
}

/// A bucket of one object, and a key service of one key. (The test kit's ports are for those who use this crate: to a
/// test inside of it, they are those of another crate.)
#[cfg(test)]
pub(super) mod one_object {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::ports::{DataKey, PutOutcome, Upload};
    use crate::seal::{MessageKey, seal};

    const WRAPPED: &[u8] = b"wrapped";

    /// The stored form of `plain`.
    pub(crate) fn sealed(context: &ObjectContext, plain: &[u8]) -> Bytes {
        let header = Header { context: context.clone(), wrapped_key: WRAPPED.to_vec() };
        let message = seal(&MessageKey::new([7; 32]), &context.to_bytes(), plain).unwrap();
        [header.to_bytes().unwrap(), message].concat().into()
    }

    /// The bucket. So many of the next replies come damaged.
    #[derive(Default)]
    pub(crate) struct OneObject {
        pub(crate) body: Bytes,
        pub(crate) damaged: AtomicU32,
        pub(crate) replies: AtomicU32,
    }

    fn refused<T>() -> Result<T> {
        Err(Error::new(ErrorKind::Internal, "readers only ask for ranges"))
    }

    #[async_trait]
    impl ObjectStore for OneObject {
        async fn put(&self, _: ObjectKey, _: Bytes) -> Result<()> {
            refused()
        }
        async fn put_if_absent(&self, _: ObjectKey, _: Bytes) -> Result<PutOutcome> {
            refused()
        }
        async fn upload(&self, _: ObjectKey) -> Result<Box<dyn Upload>> {
            refused()
        }
        async fn get(&self, _: ObjectKey, _: u64) -> Result<Bytes> {
            refused()
        }
        async fn get_range(&self, _: ObjectKey, offset: u64, length: u64) -> Result<Bytes> {
            self.replies.fetch_add(1, Ordering::SeqCst);
            let (start, length) = (usize::try_from(offset).unwrap(), usize::try_from(length).unwrap());
            let mut reply = self.body.get(start..start + length).ok_or_else(|| corrupt("shorter"))?.to_vec();
            let damaged = self.damaged.load(Ordering::SeqCst);
            if damaged > 0 {
                self.damaged.store(damaged - 1, Ordering::SeqCst);
                reply[0] ^= 1;
            }
            Ok(reply.into())
        }
        async fn copy(&self, _: ObjectKey, _: ObjectKey) -> Result<()> {
            refused()
        }
        async fn stored_sha256(&self, _key: ObjectKey) -> Result<Option<[u8; 32]>> {
            unreachable!("only read")
        }
        async fn store_millis(&self) -> Result<u64> {
            unreachable!("only read")
        }
        async fn size(&self, _: ObjectKey) -> Result<Option<u64>> {
            refused()
        }
    }

    /// The key service.
    pub(crate) struct OneKey;

    #[async_trait]
    impl DataKeys for OneKey {
        async fn generate(&self, _: &ObjectContext) -> Result<DataKey> {
            refused()
        }
        async fn unwrap(&self, wrapped: &[u8], _: &ObjectContext) -> Result<MessageKey> {
            if wrapped == WRAPPED { Ok(MessageKey::new([7; 32])) } else { Err(corrupt("another key")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::one_object::{OneKey, OneObject, sealed};
    use super::*;
    use crate::id::{Attempt, ClusterTime};

    const fn is_shared<T: Send + Sync>() {}
    const _: () = is_shared::<SealedRanges>();

    const FROM: ClusterTime = ClusterTime { seconds: 1_795_312_800, ordinal: 7 };

    fn key_and_context() -> (ObjectKey, ObjectContext) {
        let source = "main".parse().unwrap();
        let slice: Attempt = "01M80FPN78VHXM75HQT0PV8SYY".parse().unwrap();
        (ObjectKey::Slice(source, FROM, slice), ObjectContext::of_slice(source, slice, FROM))
    }

    fn plaintext(length: usize) -> Vec<u8> {
        (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    fn store(plain: &[u8]) -> OneObject {
        OneObject { body: sealed(&key_and_context().1, plain), ..OneObject::default() }
    }

    fn open(store: &OneObject, stored_bytes: usize) -> Result<SealedRanges> {
        let (key, context) = key_and_context();
        let stored_bytes = u64::try_from(stored_bytes).unwrap();
        SealedRanges::open(store, &OneKey, key, &context, stored_bytes).now_or_never().unwrap()
    }

    fn read(store: &OneObject, ranges: &SealedRanges, offset: u64, length: u64) -> Result<Vec<u8>> {
        ranges.read(store, offset, length).now_or_never().unwrap()
    }

    /// Reads a range of so many bytes, with one request, and compares it.
    fn check(plain: &[u8], offset: usize, length: usize) {
        let store = store(plain);
        let ranges = open(&store, store.body.len()).unwrap();
        assert_eq!(ranges.plain_bytes(), plain.len() as u64);
        let found = read(&store, &ranges, offset as u64, length as u64).unwrap();
        assert!(found == plain[offset..offset + length], "{length} bytes at {offset} of {}", plain.len());
        assert_eq!(store.replies.load(Ordering::SeqCst), 2, "the header, and the range");
    }

    #[test]
    fn ranges_around_the_bounds_of_records_are_what_was_sealed() {
        for bytes in [0, 1, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, 3 * RECORD_BYTES, 60_000] {
            let plain = plaintext(bytes);
            let bounds = [0, 1, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, 2 * RECORD_BYTES, bytes];
            for start in bounds {
                for end in bounds {
                    if start <= end && end <= bytes {
                        check(&plain, start, end - start);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_range_is_what_was_sealed(
            bytes in 0_usize..60_000, one in 0_usize..60_000, other in 0_usize..60_000,
        ) {
            let (one, other) = (one.min(bytes), other.min(bytes));
            check(&plaintext(bytes), one.min(other), one.abs_diff(other));
        }
    }

    #[test]
    fn a_range_that_is_not_there_is_refused() {
        let store = store(&plaintext(20_000));
        let ranges = open(&store, store.body.len()).unwrap();
        for (offset, length) in [(0, 20_001), (20_000, 1), (20_001, 0), (1, u64::MAX), (u64::MAX, 1)] {
            let refused = read(&store, &ranges, offset, length).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt, "{length} bytes at {offset}");
        }
        assert_eq!(store.replies.load(Ordering::SeqCst), 1, "nothing was fetched");
    }

    #[test]
    fn what_was_damaged_on_its_way_is_read_again() {
        let plain = plaintext(40_000);
        for damaged in 0..=READS_MAX {
            let store = store(&plain);
            store.damaged.store(damaged, Ordering::SeqCst);
            assert_eq!(open(&store, store.body.len()).is_ok(), damaged < READS_MAX, "{damaged} times");
            store.damaged.store(0, Ordering::SeqCst);
            let ranges = open(&store, store.body.len()).unwrap();
            store.damaged.store(damaged, Ordering::SeqCst);
            let found = read(&store, &ranges, 17_000, 20_000);
            assert_eq!(found.is_ok_and(|found| found == plain[17_000..37_000]), damaged < READS_MAX);
        }
    }

    #[test]
    fn an_object_that_is_not_what_was_stored_gives_nothing() {
        let (plain, stored) = (plaintext(RECORD_BYTES), store(&plaintext(RECORD_BYTES)).body);
        let whole = |body: Vec<u8>, stored_bytes: usize| {
            let store = OneObject { body: body.into(), ..OneObject::default() };
            let ranges = open(&store, stored_bytes)?;
            read(&store, &ranges, 0, ranges.plain_bytes())
        };
        assert!(whole(stored.to_vec(), stored.len()).unwrap() == plain);
        for place in (0..stored.len()).step_by(41).chain(stored.len() - 16..stored.len()) {
            let mut bad = stored.to_vec();
            bad[place] ^= 1;
            let refused = whole(bad, stored.len()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt, "byte {place}");
        }
        for stored_bytes in [0, 1, 100, stored.len() - 16, stored.len() - 1, stored.len() + 1, usize::MAX] {
            let refused = whole(stored.to_vec(), stored_bytes).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt, "{stored_bytes} bytes");
        }
        assert!(whole(stored[..stored.len() - 1].to_vec(), stored.len()).is_err(), "cut short");
    }
}
