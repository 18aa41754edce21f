//! What holds at every moment, however steps meet.

use backup_core::format::{Manifest, ObjectContext, ObjectKey, ObjectKind, Opened, open_json};
use backup_core::id::{ClusterTime, OperationId};
use backup_core::operation::{Operation, OperationKind, OperationState};
use backup_core::plan::windows::{Base, Window, windows};
use backup_core::ports::{Catalog, Timeline};
use backup_testkit::fixture::{Step, World};
use backup_testkit::{Faults, MemoryStore};

/// Rows of a kind that tests look at.
const ROWS_MAX: u32 = 1000;

/// The buckets of all regions, the home region's first.
pub(crate) fn buckets(world: &World) -> [(&str, &MemoryStore); 3] {
    [("home", &world.store), (World::REPLICA, &world.replica), (World::SECOND_REPLICA, &world.second_replica)]
}

pub(crate) async fn rows(world: &World, kind: OperationKind) -> Vec<Operation> {
    world.catalog.operations(kind, ROWS_MAX).await.unwrap()
}

/// Whether the bucket has the backup's manifest.
pub(crate) fn has_manifest(bucket: &MemoryStore, backup: &Operation) -> bool {
    let key = ObjectKey::Manifest(backup.backup_place().unwrap());
    bucket.objects().contains_key(&key.to_path().unwrap())
}

/// Everything that is checked after every step.
pub(crate) async fn check(world: &World, when: &str) {
    check_no_dangling(world, when).await;
    check_uses(world, when).await;
    check_windows(world, when).await;
}

/// Every chunk that a manifest names is in the same bucket, with its length.
async fn check_no_dangling(world: &World, when: &str) {
    for (name, bucket) in buckets(world) {
        let objects = bucket.objects();
        for (path, body) in &objects {
            let Some(ObjectKey::Manifest(place)) = ObjectKey::from_path(path) else { continue };
            let source = "main".parse().unwrap();
            let context = ObjectContext::of_operation(ObjectKind::Manifest, source, place.backup);
            let opened: Opened<Manifest> = open_json(&world.keys, &context, body).await.unwrap();
            for (_, chunk) in opened.value.chunks() {
                let key = ObjectKey::Chunk(place, chunk.ordinal, chunk.stored.attempt).to_path().unwrap();
                let bytes = objects.get(&key).map(|it| u64::try_from(it.len()).unwrap());
                assert_eq!(bytes, Some(chunk.stored.stored_bytes), "{when}: {key} in {name}");
            }
        }
    }
}

/// What an operation reads that has begun is there.
async fn check_uses(world: &World, when: &str) {
    let waits = |it: &Operation| it.state.is_final() || it.state == OperationState::Requested;
    for kind in [OperationKind::Backup, OperationKind::Restore, OperationKind::Drill] {
        for reader in rows(world, kind).await.into_iter().filter(|it| !waits(it)) {
            let Some(backup) = reader.used_backup() else { continue };
            let row = world.catalog.operation(OperationKind::Backup, backup).await;
            let row = row.unwrap_or_else(|why| panic!("{when}: {} reads {backup}: {why}", reader.id));
            assert!(has_manifest(&world.store, &row), "{when}: {} reads {backup}", reader.id);
        }
    }
}

/// Every window that is shown has its base, and every slice that it is folded through.
async fn check_windows(world: &World, when: &str) {
    let Some(head) = world.timeline.head().await.unwrap() else { return };
    let breaks = world.timeline.breaks().await.unwrap();
    let backups = rows(world, OperationKind::Backup).await;
    let bases: Vec<Base> = backups.iter().filter_map(Base::of).collect();
    for base in &bases {
        let row = backups.iter().find(|it| it.id == base.backup).unwrap();
        assert!(has_manifest(&world.store, row), "{when}: base {} is shown", base.backup);
    }
    for window in windows(&bases, Some(&head), &breaks) {
        let base = bases.iter().find(|it| it.backup == window.bases[0]).unwrap();
        let end = window.until.next().min(head.stored_to);
        check_slices(world, (base.oldest.next(), end), &window, when).await;
    }
}

async fn check_slices(world: &World, (from, end): (ClusterTime, ClusterTime), window: &Window, when: &str) {
    if from >= end {
        return;
    }
    let slices = world.timeline.slices(from, end).await.unwrap();
    let is_whole = slices.first().is_some_and(|it| it.from <= from)
        && slices.last().is_some_and(|it| it.to >= end)
        && slices.windows(2).all(|pair| pair[0].to == pair[1].from);
    assert!(is_whole, "{when}: {from} to {end} of {window:?}: {slices:?}");
    for slice in slices {
        let key = ObjectKey::Slice("main".parse().unwrap(), slice.from, slice.slice).to_path().unwrap();
        assert!(world.store.objects().contains_key(&key), "{when}: {key}");
    }
}

/// When everything has ended, every object of a backup belongs to one that the catalog knows.
pub(crate) async fn check_no_orphans(world: &World, when: &str) {
    let known: Vec<String> =
        rows(world, OperationKind::Backup).await.iter().map(|row| row.id.to_string()).collect();
    for (name, bucket) in buckets(world) {
        for path in bucket.objects().keys() {
            let is_of_a_backup = path.starts_with("automated/") || path.starts_with("manual/");
            let is_known = path.split('/').any(|part| known.iter().any(|id| id == part));
            assert!(!is_of_a_backup || is_known, "{when}: {path} in {name}");
        }
    }
}

/// Nothing of a backup is left anywhere.
pub(crate) async fn check_gone(world: &World, backup: OperationId, when: &str) {
    let row = world.catalog.operation(OperationKind::Backup, backup).await;
    assert!(row.is_err(), "{when}: the row of {backup}");
    for (name, bucket) in buckets(world) {
        let left = bucket.objects().into_keys().find(|path| path.contains(&backup.to_string()));
        assert_eq!(left, None, "{when}: in {name}");
    }
}

/// Runs the step of the pruner in a process that does not die.
pub(crate) async fn prune(world: &World, id: OperationId) -> backup_core::Result<()> {
    world.step(&Faults::none(), id, Step::PruneRetention).await
}
