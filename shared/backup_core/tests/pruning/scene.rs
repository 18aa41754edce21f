//! Backups of forty days, of which the pruner keeps some, freezes one, and removes others with their copies.

use backup_core::id::{ClusterTime, OperationId};
use backup_core::operation::{BackupDetail, BackupNote, Detail, OperationKind, Trigger};
use backup_core::ports::{Catalog, Clock, Timeline};
use backup_testkit::fixture::World;
use bson::rawdoc;

use crate::invariants::{buckets, rows};

pub(crate) const HOUR: u64 = 3_600_000;
pub(crate) const DAY: u64 = 24 * HOUR;

/// A world, and its backups in the order they were taken.
pub(crate) struct Scene {
    pub(crate) world: World,
    /// A manual one, deleted by hand; the timeline begins with it.
    pub(crate) deleted: OperationId,
    /// The first automated one of its day, week and month: only its month keeps it.
    pub(crate) monthly: OperationId,
    /// Two that nothing keeps any more.
    pub(crate) old: [OperationId; 2],
    /// The first one of its day, week and month.
    pub(crate) today: OperationId,
    /// The first one of its day: its copies are no longer wanted.
    pub(crate) recent: OperationId,
    /// The newest.
    pub(crate) newest: OperationId,
}

/// A whole backup as the schedule asks for it, copied to the other regions.
pub(crate) async fn back_up(world: &World) -> OperationId {
    let detail = BackupDetail::requested(Trigger::Automated, false);
    let id = world.request(&[], Detail::Backup(detail)).await;
    world.carry_out(OperationKind::Backup, id).await.unwrap();
    world.replicate(id).await.unwrap();
    world.clock.advance(HOUR);
    id
}

/// Takes them.
pub(crate) async fn forty_days() -> Scene {
    let world = World::with_data();
    let deleted = world.back_up().await;
    for id in 0..10 {
        world.cluster.write("leads", &rawdoc! { "_id": id, "name": "changed" });
        world.capture().await.unwrap();
    }
    let monthly = back_up(&world).await;
    let old = [back_up(&world).await, back_up(&world).await];
    world.clock.advance(40 * DAY);
    let today = back_up(&world).await;
    world.clock.advance(DAY);
    let recent = back_up(&world).await;
    world.clock.advance(30 * HOUR); // until its copies are no longer locked
    let newest = back_up(&world).await;
    world.clock.advance(HOUR);
    world.catalog.note(deleted, &BackupNote::Unwanted(Some("ana".into()))).await.unwrap();
    Scene { world, deleted, monthly, old, today, recent, newest }
}

impl Scene {
    /// The same with buckets, rows and a clock of its own; its cluster is empty.
    pub(crate) async fn copy(&self) -> Self {
        let world = World { keys: self.world.keys.clone(), ..World::default() };
        world.clock.advance(self.world.clock.now_millis() - world.clock.now_millis());
        for ((_, from), (_, to)) in buckets(&self.world).into_iter().zip(buckets(&world)) {
            from.objects().into_iter().for_each(|(path, body)| to.tamper(&path, body));
        }
        for kind in OperationKind::ALL {
            for row in rows(&self.world, kind).await {
                world.catalog.create_operation(&row).await.unwrap();
            }
        }
        let head = self.world.timeline.head().await.unwrap().unwrap();
        let slices = self.world.timeline.slices(ClusterTime::from_u64(0), head.to).await.unwrap();
        let breaks = self.world.timeline.breaks().await.unwrap();
        world.timeline.bring_back(&head, &slices, &breaks).await.unwrap();
        Self { world, ..*self }
    }
}
