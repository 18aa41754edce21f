//! Contracts of the bucket and of the key service.

use backup_core::error::ErrorKind;
use backup_core::format::{BackupPlace, ObjectContext, ObjectKey, ObjectKind, Place, Prefix};
use backup_core::operation::Trigger;
use backup_core::ports::{
    ColdStorage, Copies, DataKeys, Listing, Locks, ObjectStore, PutOutcome, Shelves, Temperature,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::fresh_id;

fn place() -> BackupPlace {
    BackupPlace { trigger: Trigger::Manual, backup: fresh_id() }
}

/// The contract of [`ObjectStore`].
pub async fn object_store(store: &dyn ObjectStore) {
    let place = place();
    let key = |ordinal| ObjectKey::ChunkResult(place, ordinal);
    assert_eq!(store.size(key(0)).await.unwrap(), None);
    assert_eq!(store.stored_sha256(key(0)).await.unwrap(), None);
    assert_eq!(store.get(key(0), 10).await.unwrap_err().kind(), ErrorKind::NotFound);

    store.put(key(0), Bytes::from_static(b"one")).await.unwrap();
    store.put(key(0), Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(store.get(key(0), 5).await.unwrap(), "other");
    assert_eq!(store.get(key(0), 4).await.unwrap_err().kind(), ErrorKind::Corrupt, "larger than it may be");
    assert_eq!(store.size(key(0)).await.unwrap(), Some(5));
    checksum_is_right(store, key(0), b"other").await;
    assert_eq!(store.get_range(key(0), 1, 3).await.unwrap(), "the");
    assert_eq!(
        store.get_range(key(0), 3, 3).await.unwrap_err().kind(),
        ErrorKind::Corrupt,
        "shorter than the range"
    );

    let (left, right) = tokio::join!(
        store.put_if_absent(key(1), Bytes::from_static(b"left")),
        store.put_if_absent(key(1), Bytes::from_static(b"right")),
    );
    let stored = [left.unwrap(), right.unwrap()];
    assert_eq!(stored.iter().filter(|it| **it == PutOutcome::Stored).count(), 1, "exactly one of two wins");
    assert_eq!(store.put_if_absent(key(1), Bytes::new()).await.unwrap(), PutOutcome::AlreadyThere);

    for (ordinal, length) in [(2, 0_usize), (3, 1000), (4, 20 * 1024 * 1024)] {
        let whole: Bytes = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let mut upload = store.upload(key(ordinal)).await.unwrap();
        for piece in whole.chunks(3_000_000) {
            upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        assert_eq!(store.size(key(ordinal)).await.unwrap(), None, "nothing is visible before the end");
        upload.finish().await.unwrap();
        let found = store.get(key(ordinal), u64::MAX).await.unwrap();
        assert!(found == whole, "an upload of {length} bytes comes back");
        checksum_is_right(store, key(ordinal), &whole).await;
    }
    let mut given_up = store.upload(key(5)).await.unwrap();
    given_up.write(Bytes::from_static(b"x")).await.unwrap();
    given_up.abort().await;
    assert_eq!(store.size(key(5)).await.unwrap(), None);

    let earlier = store.store_millis().await.unwrap();
    assert!(earlier > 1_700_000_000_000, "{earlier} is a time in this decade");
    assert!(store.store_millis().await.unwrap() >= earlier, "time does not go back");
}

/// A store that keeps a checksum keeps the right one.
async fn checksum_is_right(store: &dyn ObjectStore, key: ObjectKey, body: &[u8]) {
    if let Some(found) = store.stored_sha256(key).await.unwrap() {
        assert_eq!(found, <[u8; 32]>::from(Sha256::digest(body)), "of {key:?}");
    }
}

/// The contract of [`Listing`], of a bucket that `store` writes.
pub async fn listing(store: &dyn ObjectStore, listing: &dyn Listing) {
    const COUNT: u32 = 23; // more than a page in memory
    let (place, other) = (place(), place());
    let prefix = Prefix::Of(Place::Backup(place));
    assert!(listing.list(prefix, None).await.unwrap().is_empty());
    store.put(ObjectKey::ChunkResult(other, 0), Bytes::from_static(b"another's")).await.unwrap();
    let mut expected = Vec::new();
    for ordinal in 0..COUNT {
        let (key, length) = (ObjectKey::ChunkResult(place, ordinal), usize::try_from(ordinal).unwrap());
        store.put(key, Bytes::from(vec![b'x'; length])).await.unwrap();
        expected.push((key.to_path().unwrap(), u64::from(ordinal)));
    }
    expected.sort_unstable();
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = listing.list(prefix, after.as_deref()).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        listed.extend(page);
    }
    assert_eq!(listed, expected, "all of it, each once, in order");
    let rest = listing.list(prefix, Some(&expected[20].0)).await.unwrap();
    assert_eq!(rest, expected[21..], "what is behind");
}

/// The contract of [`Locks`] and [`Shelves`], of a bucket that `store` writes. One object stays locked for a minute.
pub async fn shelves(store: &dyn ObjectStore, locks: &dyn Locks, shelves: &dyn Shelves) {
    let place = place();
    let prefix = Prefix::Of(Place::Backup(place));
    let key = |ordinal| ObjectKey::ChunkResult(place, ordinal);
    assert!(shelves.versions(prefix).await.unwrap().is_empty());
    assert!(shelves.versions_of(key(0)).await.unwrap().is_empty());
    assert!(shelves.remove(&[]).await.unwrap().is_empty());
    for (ordinal, body) in [(0, "old"), (0, "newer"), (1, "locked"), (10, "ten")] {
        store.put(key(ordinal), Bytes::from(body)).await.unwrap();
    }
    let until = store.store_millis().await.unwrap() + 60_000;
    for again in [until, until, until - 30_000] {
        locks.lock(key(1), again).await.unwrap(); // however often, and never for a shorter time
    }
    assert_eq!(locks.lock(key(7), until).await.unwrap_err().kind(), ErrorKind::NotFound);

    let all = shelves.versions(prefix).await.unwrap();
    let path = |ordinal| key(ordinal).to_path().unwrap();
    for (ordinal, bytes) in [(0, 5), (1, 6), (10, 3)] {
        assert!(all.iter().any(|it| it.path == path(ordinal) && it.bytes == bytes), "{ordinal} in {all:?}");
        let of_it: Vec<_> = all.iter().filter(|it| it.path == path(ordinal)).cloned().collect();
        let found = shelves.versions_of(key(ordinal)).await.unwrap();
        assert_eq!(found, of_it, "of {ordinal} alone, not of what begins as it does");
    }
    for _ in 0..2 {
        let stayed = shelves.remove(&all).await.unwrap();
        assert!(stayed.len() == 1 && stayed[0].path == path(1), "what is locked stays: {stayed:?}");
        assert_eq!(shelves.versions(prefix).await.unwrap(), stayed, "everything else is gone");
    }
    assert_eq!(store.get(key(1), 10).await.unwrap(), "locked");
    assert_eq!(store.size(key(0)).await.unwrap(), None);
}

/// The contract of [`Copies`]: `home` writes the bucket that objects come from, `there` the one they come to.
pub async fn copies(home: &dyn ObjectStore, there: &dyn ObjectStore, copies: &dyn Copies) {
    let (key, missing) = (ObjectKey::ChunkResult(place(), 0), ObjectKey::ChunkResult(place(), 0));
    assert_eq!(copies.bring(missing).await.unwrap_err().kind(), ErrorKind::NotFound);
    for body in ["first", "second one"] {
        home.put(key, Bytes::from(body)).await.unwrap();
        for _ in 0..2 {
            copies.bring(key).await.unwrap();
            assert_eq!(there.get(key, 100).await.unwrap(), body);
        }
        checksum_is_right(there, key, body.as_bytes()).await;
    }
    there.put(key, Bytes::from_static(b"theirs")).await.unwrap();
    assert_eq!(home.get(key, 100).await.unwrap(), "second one", "nothing comes back");
    assert_eq!(there.size(missing).await.unwrap(), None);
}

/// The contract of [`ColdStorage`], of a bucket that `store` writes. How long freezing takes is up to the store.
pub async fn cold_storage(store: &dyn ObjectStore, cold: &dyn ColdStorage) {
    let key = ObjectKey::ChunkResult(place(), 0);
    store.put(key, Bytes::from_static(b"monthly")).await.unwrap();
    assert_eq!(cold.temperature(key).await.unwrap(), Temperature::Warm);
    cold.thaw(key).await.unwrap(); // though it is warm
    assert_eq!(cold.temperature(key).await.unwrap(), Temperature::Warm);
    for _ in 0..2 {
        cold.freeze(key).await.unwrap();
        assert_ne!(cold.temperature(key).await.unwrap(), Temperature::Thawing, "nobody asked for it");
    }
    assert_eq!(store.size(key).await.unwrap(), Some(7), "it is still there");
    for _ in 0..2 {
        cold.thaw(key).await.unwrap();
        assert_ne!(cold.temperature(key).await.unwrap(), Temperature::Frozen, "it was asked for");
    }
}

/// The contract of [`DataKeys`].
pub async fn data_keys(keys: &dyn DataKeys) {
    let context = |kind| ObjectContext::of_operation(kind, "main".parse().unwrap(), fresh_id());
    let (mine, others) = (context(ObjectKind::Chunk), context(ObjectKind::Chunk));
    let (first, second) = (keys.generate(&mine).await.unwrap(), keys.generate(&mine).await.unwrap());
    assert_ne!(*first.plain, *second.plain, "every object has a key of its own");
    assert_eq!(*keys.unwrap(&first.wrapped, &mine).await.unwrap(), *first.plain);
    let refused = keys.unwrap(&first.wrapped, &others).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt, "bound to its context");
}

/// The contract of a replica of a key: what the one wraps, the other opens.
pub async fn replica_keys(home: &dyn DataKeys, replica: &dyn DataKeys) {
    let context = ObjectContext::of_operation(ObjectKind::Manifest, "main".parse().unwrap(), fresh_id());
    for (wraps, opens) in [(home, replica), (replica, home)] {
        let key = wraps.generate(&context).await.unwrap();
        assert_eq!(*opens.unwrap(&key.wrapped, &context).await.unwrap(), *key.plain);
    }
}
