//! What happens to a MongoDB cluster while Nightsafe reads or writes it: elections, killed nodes, a network that is
//! cut or falls silent, snapshots that grow too old, slow answers, no connection left. A backup or restore completes
//! or fails clearly; and what completed is exact.

use std::time::{Duration, Instant};

use backup_core::format::Consistency;
use backup_core::id::OperationId;
use backup_core::operation::OperationKind;
use backup_core::{ErrorKind, Result};
use backup_testkit::fixture::Step;
use bson::doc;
use tokio::net::TcpStream;

use crate::busy_database::{BUSY, Writer, check_exact, check_restored, damage, prepare, stamps};
use crate::chain::{Chain, Failed};
use crate::fixture::Fixture;
use crate::relay::{Fuse, Relay, Script};
use crate::replica_set::ReplicaSet;

/// Five chunks.
const DOCUMENTS: i32 = 400;
/// Three chunks: all of them are written again and again in one transaction.
const STAMPED_DOCUMENTS: i32 = 250;
/// A server that says nothing any more is given up within the driver's heartbeat and connect timeout (10 s), and
/// each of them once more.
const SILENT_SECONDS_MAX: u64 = 30;
/// A chunk has 2.6 MB: 2 MB come with `find`, the rest with `getMore`.
const NETWORK_FAULTS: [Script; 4] = [
    Script::CutInAnswer(100_000),
    Script::CutInAnswer(1_500_000),
    Script::CutInAnswer(2_300_000),
    Script::StallInAnswer(2_300_000),
];

/// The primary steps down three times in the middle of a dump, and then before an insert and in the middle of a swap.
pub(crate) fn no_election_makes_a_false_backup_or_restore(fixture: &Fixture) {
    fixture.run(async {
        let set = ReplicaSet::start(3, &[]).await;
        let (chain, database) = prepare(&set, &set.uri(), DOCUMENTS).await;
        let writer = Writer::ordinary(&database);
        let backup = back_up_over_elections(&set, &chain).await;
        assert!(writer.stop().await > 0, "nobody wrote");
        tell("a backup over three elections", &chain.take_failed());
        let manifest = chain.manifest(backup).await.unwrap();
        assert_eq!(manifest.consistency, Consistency::SingleInstant, "every member has the history");
        check_exact(&chain, &manifest, set.client()).await;

        damage(&database).await;
        restore_over_elections(&set, &chain).await;
        tell("a restore over two elections", &chain.take_failed());
        check_restored(&chain, &manifest, &database).await;
    });
}

async fn back_up_over_elections(set: &ReplicaSet, chain: &Chain) -> OperationId {
    let mut commands = ["getMore", "find", "getMore"].into_iter();
    let id = chain.request_backup(BUSY, &[]).await;
    let backup = chain.drive(OperationKind::Backup, id, async |step| {
        let command = if is_dump(step) { commands.next() } else { None };
        match command {
            Some(command) => step_down_amid(set, command, chain.run(id, step)).await,
            None => chain.run(id, step).await,
        }
    });
    backup.await.unwrap();
    id
}

async fn restore_over_elections(set: &ReplicaSet, chain: &Chain) {
    let id = chain.request_restore(BUSY, &[]).await;
    let restore = chain.drive(OperationKind::Restore, id, async |step| match step {
        Step::RestoreChunk(item) if item.first == 0 => {
            step_down_amid(set, "insert", chain.run(id, step)).await
        }
        Step::FinishRestore => step_down_amid(set, "renameCollection", chain.run(id, step)).await,
        _ => chain.run(id, step).await,
    });
    restore.await.unwrap();
}

/// SIGKILL of a secondary and of the primary in the middle of a dump, and of the primary in the middle of a restore.
pub(crate) fn no_killed_node_makes_a_false_backup_or_restore(fixture: &Fixture) {
    fixture.run(async {
        let set = ReplicaSet::start(3, &[]).await;
        let (chain, database) = prepare(&set, &set.uri(), DOCUMENTS).await;
        let writer = Writer::ordinary(&database);
        let primary = set.primary().await;
        // The third one keeps all the history.
        let [secondary, referee] = [(primary + 1) % 3, (primary + 2) % 3];
        let backup = back_up_over_killed(&set, &chain, [secondary, primary]).await;
        assert!(writer.stop().await > 0, "nobody wrote");
        let failed = chain.take_failed();
        tell("a backup over two killed nodes", &failed);
        let lost = |it: &Failed| it.kind == ErrorKind::Transient && it.told.contains("read \"large\"");
        assert!(failed.iter().any(lost), "no cursor was lost with the primary");
        let manifest = chain.manifest(backup).await.unwrap();
        check_exact(&chain, &manifest, set.direct(referee)).await;

        damage(&database).await;
        restore_over_killed(&set, &chain).await;
        let failed = chain.take_failed();
        tell("a restore over a killed primary", &failed);
        assert!(failed.iter().any(|it| it.told.contains("insert into")), "no insert was lost");
        check_restored(&chain, &manifest, &database).await;
    });
}

async fn back_up_over_killed(set: &ReplicaSet, chain: &Chain, victims: [usize; 2]) -> OperationId {
    let mut victims = victims.into_iter();
    let id = chain.request_backup(BUSY, &[]).await;
    let backup = chain.drive(OperationKind::Backup, id, async |step| {
        let victim = if is_dump(step) { victims.next() } else { None };
        let Some(victim) = victim else { return chain.run(id, step).await };
        let (_, done) = amid(set, "getMore", chain.run(id, step), async |_| set.kill(victim)).await;
        set.restart(victim).await;
        done
    });
    backup.await.unwrap();
    id
}

async fn restore_over_killed(set: &ReplicaSet, chain: &Chain) {
    let id = chain.request_restore(BUSY, &[]).await;
    let restore = chain.drive(OperationKind::Restore, id, async |step| match step {
        Step::RestoreChunk(item) if item.first == 0 => {
            let kill = async |primary: usize| set.kill(primary);
            let (killed, done) = amid(set, "insert", chain.run(id, step), kill).await;
            set.restart(killed).await;
            done
        }
        _ => chain.run(id, step).await,
    });
    restore.await.unwrap();
}

/// Connections are reset, or fall silent, in the middle of what a cursor gives.
pub(crate) fn a_network_that_fails_in_mid_cursor_is_told_and_survived(fixture: &Fixture) {
    fixture.run(async {
        let set = ReplicaSet::start(1, &[]).await;
        let fuse = Fuse::new();
        let relay = Relay::start(set.address(0), &fuse).await;
        let uri = format!("mongodb://{}/?directConnection=true&heartbeatFrequencyMS=500", relay.address());
        let (chain, database) = prepare(&set, &uri, DOCUMENTS).await;
        let writer = Writer::ordinary(&database);
        let mut scripts = NETWORK_FAULTS.into_iter();
        let id = chain.request_backup(BUSY, &[]).await;
        let backup = chain.drive(OperationKind::Backup, id, async |step| {
            let script = if is_dump(step) { scripts.next() } else { None };
            if let Some(script) = script {
                fuse.play(script);
                fails_in_time(&chain, id, step, script).await;
                fuse.play(Script::Pass);
            }
            chain.run(id, step).await
        });
        backup.await.unwrap();
        assert!(scripts.next().is_none(), "there are fewer chunks than faults");
        assert!(writer.stop().await > 0, "nobody wrote");
        tell("a backup over a bad network", &chain.take_failed());
        let manifest = chain.manifest(id).await.unwrap();
        assert_eq!(manifest.consistency, Consistency::SingleInstant);
        check_exact(&chain, &manifest, set.client()).await;
    });
}

async fn fails_in_time(chain: &Chain, id: OperationId, step: Step, script: Script) {
    let began = Instant::now();
    let why = chain.run_once(id, step).await.expect_err("the network failed");
    assert_eq!(why.kind(), ErrorKind::Transient, "{script:?}: {why}");
    assert!(why.to_string().contains("read \"large\""), "{script:?}: {why}");
    assert!(began.elapsed() < Duration::from_secs(SILENT_SECONDS_MAX), "{script:?}: it hung: {why}");
}

/// The server forgets its history within seconds, and one read takes longer than that.
pub(crate) fn snapshots_that_grow_too_old_make_a_mosaic_of_whole_chunks(fixture: &Fixture) {
    fixture.run(async {
        let set = ReplicaSet::start(1, &[]).await;
        let (chain, database) = prepare(&set, &set.uri(), STAMPED_DOCUMENTS).await;
        let writer = Writer::stamping(&database);
        set.set_parameter(0, "minSnapshotHistoryWindowInSeconds", 2).await;
        let late = doc! { "blockConnection": true, "blockTimeMS": 6000 };
        let mut dumped = 0;
        let id = chain.request_backup(BUSY, &[]).await;
        let backup = chain.drive(OperationKind::Backup, id, async |step| {
            dumped += u32::from(is_dump(step));
            if is_dump(step) && dumped == 2 {
                set.fail(0, doc! { "times": 1 }.into(), &["getMore"], &late).await;
            }
            chain.run(id, step).await
        });
        backup.await.unwrap();
        assert!(writer.stop().await > 0, "nobody wrote");
        tell("a backup of what grows old", &chain.take_failed());
        let manifest = chain.manifest(id).await.unwrap();
        assert_eq!(manifest.consistency, Consistency::Mosaic);
        let stamps = stamps(&chain, &manifest).await;
        assert!(stamps.iter().all(|it| it.len() == 1), "a chunk is of several instants: {stamps:?}");
        assert!(stamps.iter().any(|it| *it != stamps[0]), "nothing was read at another instant: {stamps:?}");
        let documents = u64::try_from(STAMPED_DOCUMENTS).unwrap() + 10; // with those of the small collection
        assert_eq!(manifest.totals().documents, documents, "each document once");
    });
}

/// Every answer that has documents comes late.
pub(crate) fn slow_reads_are_waited_for(fixture: &Fixture) {
    fixture.run(async {
        let set = ReplicaSet::start(1, &[]).await;
        let (chain, database) = prepare(&set, &set.uri(), DOCUMENTS).await;
        let writer = Writer::ordinary(&database);
        let slow = doc! { "blockConnection": true, "blockTimeMS": 300 };
        set.fail(0, "alwaysOn".into(), &["find", "getMore"], &slow).await;
        let manifest = chain.back_up(BUSY, &[]).await.unwrap();
        set.heal(0).await;
        assert!(writer.stop().await > 0, "nobody wrote");
        assert!(chain.take_failed().is_empty(), "a slow server is no fault");
        assert_eq!(manifest.consistency, Consistency::SingleInstant);
        check_exact(&chain, &manifest, set.client()).await;
    });
}

/// Others have every connection that the server allows.
pub(crate) fn no_connection_left_is_told_and_survived(fixture: &Fixture) {
    fixture.run(async {
        let set = ReplicaSet::start(1, &["--maxConns", "40"]).await;
        let (chain, database) = prepare(&set, &set.uri(), DOCUMENTS).await;
        // The driver has looked at the server, and has no connection for commands yet.
        until("the driver looks at the server", async || knows_nightsafe(&set).await).await;
        let crowd = crowd(&set).await;
        let id = chain.request_backup(BUSY, &[]).await;
        let why = chain.run_once(id, Step::TriggerBackup).await.expect_err("no connection was left");
        assert_eq!(why.kind(), ErrorKind::Transient, "{why}");
        assert!(why.to_string().contains("look at the server"), "{why}");
        tell("a backup without a connection", &chain.take_failed());
        drop(crowd);
        until("the crowd leaves", async || connections_left(&set).await > 20).await;
        let writer = Writer::ordinary(&database);
        chain.carry_out(OperationKind::Backup, id).await.unwrap();
        assert!(writer.stop().await > 0, "nobody wrote");
        let manifest = chain.manifest(id).await.unwrap();
        check_exact(&chain, &manifest, set.client()).await;
    });
}

/// Connections of strangers, as many as the server takes.
async fn crowd(set: &ReplicaSet) -> Vec<TcpStream> {
    const STRANGERS_MAX: usize = 1000;
    let mut crowd = Vec::new();
    while connections_left(set).await > 0 {
        assert!(crowd.len() < STRANGERS_MAX, "the server takes more connections than it was told to");
        crowd.push(TcpStream::connect(set.address(0)).await.unwrap());
    }
    // Some wait at the door, should a place become free.
    for _ in 0..50 {
        crowd.push(TcpStream::connect(set.address(0)).await.unwrap());
    }
    crowd
}

async fn connections_left(set: &ReplicaSet) -> i32 {
    let status = set.direct(0).database("admin").run_command(doc! { "serverStatus": 1 }).await.unwrap();
    status.get_document("connections").unwrap().get_i32("available").unwrap()
}

async fn knows_nightsafe(set: &ReplicaSet) -> bool {
    let all = doc! { "$currentOp": { "allUsers": true, "idleConnections": true } };
    let ours = doc! { "$match": { "appName": "nightsafe" } };
    let command = doc! { "aggregate": 1, "pipeline": [all, ours], "cursor": {} };
    let reply = set.direct(0).database("admin").run_command(command).await.unwrap();
    !reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap().is_empty()
}

/// Asks a server again and again: it tells nobody by itself.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_mins(1), "{what}: in vain");
    }
}

const fn is_dump(step: Step) -> bool {
    matches!(step, Step::DumpChunk(_))
}

/// Runs a step; while one of its commands is held at the primary, something happens. Gives who was primary, too.
async fn amid(
    set: &ReplicaSet,
    command: &str,
    step: impl Future<Output = Result<()>>,
    happens: impl AsyncFnOnce(usize),
) -> (usize, Result<()>) {
    let primary = set.primary().await;
    let held = set.hold(primary, command).await;
    let happening = async {
        held.entered().await;
        happens(primary).await;
    };
    let (done, ()) = tokio::join!(step, happening);
    (primary, done)
}

async fn step_down_amid(
    set: &ReplicaSet,
    command: &str,
    step: impl Future<Output = Result<()>>,
) -> Result<()> {
    amid(set, command, step, async |_| set.step_down().await).await.1
}

/// What a run of the tests shows of what was survived.
fn tell(what: &str, failed: &[Failed]) {
    eprintln!("{what}: {} runs of steps failed", failed.len());
    for Failed { step, kind, told } in failed {
        eprintln!("  {step:?}: {kind:?}: {told}");
    }
}
