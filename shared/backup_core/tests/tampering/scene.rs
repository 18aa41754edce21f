//! Where tampering happens: two backups of a database, everything as it was before, and the one check.

use std::collections::BTreeMap;

use backup_core::bson::{IdRange, split_documents};
use backup_core::format::{
    BackupPlan, Captured, ChunkOutcome, ChunkResult, ObjectContext, ObjectKey, ObjectKind, Opened,
    RestorePlace, WorkItem, open_json,
};
use backup_core::id::OperationId;
use backup_core::namespace::OwnName;
use backup_core::operation::{Detail, Operation, OperationKind, OperationState, RestoreDetail};
use backup_core::ports::{Catalog, ChunkRead, Resource, Source};
use backup_core::{ErrorKind, Result};
use backup_testkit::Faults;
use backup_testkit::fixture::{DATABASE, Step, World, lead};
use bson::spec::BinarySubtype;
use bson::{Binary, RawDocumentBuf, rawdoc};
use bytes::Bytes;
use sha2::{Digest, Sha256};

type Contents = BTreeMap<String, Vec<Bytes>>;
/// Names beside a restore's plan, with what is put there.
pub(crate) type Files<'a> = &'a [(&'a str, &'a str)];

pub(crate) const MANIFEST: &str = "/manifest.json.sealed";
/// Every chunk of [`database`]: three of `large`, two of `other`, one of `small`. Each is a work item.
pub(crate) const EVERYTHING: WorkItem = WorkItem { first: 0, count: 6 };

/// A document with so much that cannot be compressed, and so much that can.
pub(crate) fn document(n: i32, noise_bytes: usize, filler_bytes: usize) -> RawDocumentBuf {
    let mut noise = vec![0; noise_bytes];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut noise);
    let noise = Binary { subtype: BinarySubtype::Generic, bytes: noise };
    rawdoc! { "_id": n, "noise": noise, "filler": "x".repeat(filler_bytes) }
}

/// A database whose larger documents are a chunk of three records each.
pub(crate) fn database() -> World {
    let world = World::default();
    world.cluster.fill("large", (0..3).map(|n| document(n, 40_000, 0)));
    world.cluster.fill("other", (100..102).map(|n| document(n, 40_000, 0)));
    world.cluster.fill("small", (0..5).map(lead));
    world
}

pub(crate) fn restore_of(backup: Option<OperationId>) -> Detail {
    let (full, may_replace, dry_run) = (true, true, false);
    Detail::Restore(RestoreDetail { backup, may_replace, dry_run, ..RestoreDetail::requested(full) })
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

pub(crate) async fn run(world: &World, id: OperationId, steps: impl IntoIterator<Item = Step>) -> Result<()> {
    for step in steps {
        world.step(&Faults::none(), id, step).await?;
    }
    Ok(())
}

/// It was refused, for the right reason, and one of `named` stands in the message.
pub(crate) fn refused(what: &str, outcome: Result<()>, kind: ErrorKind, named: &[&str]) {
    let Err(why) = outcome else { panic!("{what}: nobody noticed") };
    let told = why.to_string();
    assert_eq!(why.kind(), kind, "{what}: {told}");
    assert!(named.iter().any(|name| told.contains(*name)), "{what}: none of {named:?} is named: {told}");
}

/// Two backups of a database, the newer one as far as a test wants it, and everything as it was before an attack.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) older: OperationId,
    pub(crate) backup: OperationId,
    /// What was backed up, and what is live now.
    pub(crate) original: Contents,
    live: Contents,
    pub(crate) objects: BTreeMap<String, Bytes>,
    pub(crate) row: Operation,
}

impl Scene {
    pub(crate) async fn of(world: World, wanted: impl Fn(&Step) -> bool) -> Self {
        let (original, older) = (world.cluster.contents(), world.back_up().await);
        let backup = world.request_backup(false).await;
        run(&world, backup, [Step::TriggerBackup]).await.unwrap();
        let steps = world.steps_after_plan(OperationKind::Backup, backup).await;
        run(&world, backup, steps.into_iter().filter(wanted)).await.unwrap();
        let row = world.operation(OperationKind::Backup, backup).await;
        let (live, objects) = (original.clone(), world.store.objects());
        let mut scene = Self { world, older, backup, original, live, objects, row };
        scene.change_live();
        scene.live = scene.world.cluster.contents();
        scene
    }

    pub(crate) async fn verified() -> Self {
        Self::of(database(), |_| true).await
    }

    pub(crate) async fn unsealed() -> Self {
        Self::of(database(), |step| matches!(step, Step::DumpChunk(_))).await
    }

    /// What is live is not what was backed up: a swap would show.
    fn change_live(&self) {
        let name = self.original.keys().next().unwrap();
        self.world.cluster.write(name, &rawdoc! { "_id": 0, "live": true });
    }

    pub(crate) fn is_unharmed(&self) -> bool {
        self.world.cluster.contents() == self.live
    }

    pub(crate) fn path_of(&self, operation: OperationId, part: &str) -> String {
        let id = operation.to_string();
        let mut found = self.objects.keys().filter(|path| path.contains(id.as_str()) && path.contains(part));
        found.next().unwrap_or_else(|| panic!("no key of {id} has {part} in it")).clone()
    }

    pub(crate) fn path(&self, part: &str) -> String {
        self.path_of(self.backup, part)
    }

    pub(crate) fn edit_row(&self, edit: impl FnOnce(&mut Operation)) {
        self.world.catalog.tamper(OperationKind::Backup, self.backup, edit);
    }

    /// As only somebody can who has the key of the plan: so that what comes after the signature is tried, too.
    pub(crate) async fn edit_result_of_chunk_0(&self, edit: impl FnOnce(&mut Captured)) {
        let path = self.path("/results/0.json");
        let mut stored = captured(&self.objects[&path]);
        edit(&mut stored);
        self.write_result_of_chunk_0(ChunkOutcome::Captured(stored)).await;
    }

    pub(crate) async fn write_result_of_chunk_0(&self, outcome: ChunkOutcome) {
        let context = ObjectContext::of_operation(ObjectKind::Plan, self.row.source, self.backup);
        let plan = &self.objects[&self.path("/plan.sealed")];
        let plan: Opened<BackupPlan> = open_json(&self.world.keys, &context, plan).await.unwrap();
        let key = ObjectKey::ChunkResult(self.row.backup_place().unwrap(), 0);
        let result = plan.evidence.sign(key, &ChunkResult { ordinal: 0, outcome }).unwrap();
        self.world.store.tamper(&key.to_path().unwrap(), result);
    }

    /// Puts bucket, row and live documents back as they were before the attack.
    pub(crate) fn rewind(&self) {
        let store = &self.world.store;
        for path in store.objects().keys().filter(|path| !self.objects.contains_key(*path)) {
            store.lose(path);
        }
        self.objects.iter().for_each(|(path, body)| store.tamper(path, body.clone()));
        self.edit_row(|row| *row = self.row.clone());
        self.change_live();
    }

    pub(crate) async fn verify(&self) -> Result<()> {
        run(&self.world, self.backup, [Step::VerifyChecksums(EVERYTHING)]).await
    }

    pub(crate) async fn request_restore(&self) -> OperationId {
        self.world.request(&[], restore_of(Some(self.backup))).await
    }

    /// Restores this backup and gives the restore up if it fails. `early` is put beside the plan once it is made,
    /// `late` just before the swap. How it ended, and how many documents it had put into staging.
    pub(crate) async fn restore(&self, early: Files<'_>, late: Files<'_>) -> (Result<()>, usize) {
        let id = self.request_restore().await;
        let outcome = self.run_restore(id, early, late).await;
        let staged = self.staged(id).await;
        run(&self.world, id, [Step::AbandonRestore]).await.unwrap();
        assert!(self.world.cluster.staging().is_empty());
        self.world.catalog.release_lease(&Resource::Target(DATABASE.to_owned()), id).await.unwrap();
        (outcome, staged)
    }

    async fn run_restore(&self, id: OperationId, early: Files<'_>, late: Files<'_>) -> Result<()> {
        run(&self.world, id, [Step::PlanRestore]).await?;
        let work = ObjectKey::RestoreWork(RestorePlace(id)).to_path()?;
        let put = |files: Files<'_>| {
            for (name, body) in files {
                let body = Bytes::copy_from_slice(body.as_bytes());
                self.world.store.tamper(&work.replace("plan.jsonl", name), body);
            }
        };
        put(early);
        let mut steps = self.world.steps_after_plan(OperationKind::Restore, id).await;
        steps.retain(|step| *step != Step::FinishRestore);
        run(&self.world, id, steps).await?;
        put(late);
        run(&self.world, id, [Step::FinishRestore]).await
    }

    /// How many documents are in staging. Each is one that its collection had.
    pub(crate) async fn staged(&self, restore: OperationId) -> usize {
        let cluster = &self.world.cluster;
        let (all, mut count) = (cluster.namespaces(DATABASE).await.unwrap(), 0);
        for (number, (collection, genuine)) in (0..).zip(&self.original) {
            let name = OwnName::Staging(restore, number).to_string();
            let Some(uuid) = all.iter().find(|it| it.name == name).and_then(|it| it.uuid) else { continue };
            let (database, range) = (DATABASE.to_owned(), IdRange::ALL);
            let read = ChunkRead { database, name, uuid, range, at: None, document_bytes_hint: 0 };
            let mut documents = cluster.read(&read).await.unwrap();
            while let Some(batch) = documents.next_batch().await.unwrap() {
                for document in split_documents(&batch) {
                    let document = document.unwrap();
                    assert!(genuine.iter().any(|it| it[..] == *document), "{collection} never had that");
                    count += 1;
                }
            }
        }
        count
    }

    /// The one check: what was done to this backup is refused when it is sealed, or else by whoever verifies and
    /// whoever restores it. Rewinds; gives the number of documents that came as far as staging.
    pub(crate) async fn check(&self, what: &str, kind: ErrorKind, named: &[&str]) -> usize {
        let mut staged = 0;
        let is_sealed = self.row.state != OperationState::Running;
        let sealing =
            if is_sealed { Ok(()) } else { run(&self.world, self.backup, [Step::SealBackup]).await };
        if sealing.is_err() {
            refused(what, sealing, kind, named);
        } else {
            refused(&format!("verify, {what}"), self.verify().await, kind, named);
            let (restored, count) = self.restore(&[], &[]).await;
            refused(&format!("restore, {what}"), restored, kind, named);
            staged = count;
        }
        assert!(self.is_unharmed(), "{what}: a live collection changed");
        self.rewind();
        staged
    }

    /// Chunk 0 is replaced, and its result says what is there now.
    pub(crate) async fn check_chunk(&self, what: &str, bytes: Bytes, kind: ErrorKind) {
        let path = self.path("/chunks/0-");
        self.edit_result_of_chunk_0(|stored| {
            stored.stored_bytes = u64::try_from(bytes.len()).unwrap();
            stored.stored_sha256 = sha256(&bytes);
        })
        .await;
        self.world.store.tamper(&path, bytes);
        let staged = self.check(what, kind, &[path.as_str()]).await;
        assert_eq!(staged, 0, "{what}: documents of it were used");
    }

    /// The manifest is replaced; once more, the SHA-256 in the catalog's row with it.
    pub(crate) async fn check_manifest(&self, what: &str, bytes: &Bytes, kind: ErrorKind) {
        let path = self.path(MANIFEST);
        for (with_row, kind) in [(false, ErrorKind::Corrupt), (true, kind)] {
            self.world.store.tamper(&path, bytes.clone());
            if with_row {
                self.edit_row(|row| row.backup_mut().unwrap().manifest_sha256 = Some(sha256(bytes)));
            }
            let staged = self.check(&format!("{what}, row: {with_row}"), kind, &[path.as_str()]).await;
            assert_eq!(staged, 0, "{what}");
        }
    }

    /// Nothing that counts was touched: the backup is as good as before.
    pub(crate) async fn check_harmless(&self, what: &str) {
        self.verify().await.unwrap_or_else(|why| panic!("verify, {what}: {why}"));
        let (restored, _) = self.restore(&[], &[]).await;
        restored.unwrap_or_else(|why| panic!("restore, {what}: {why}"));
        assert!(self.world.cluster.contents() == self.original, "{what}");
        self.rewind();
    }
}

pub(crate) fn captured(result: &[u8]) -> Captured {
    let json = result.split(|byte| *byte == b'\n').next().unwrap();
    match serde_json::from_slice::<ChunkResult>(json).unwrap().outcome {
        ChunkOutcome::Captured(stored) => stored,
        ChunkOutcome::Dropped => panic!("nothing was captured"),
    }
}
