//! What the buckets of all regions hold, compared with the catalog: a backup is whole if and only if its manifest is
//! there, in each region.

use std::collections::{BTreeMap, BTreeSet};

use aws_config::Region;
use backup_aws::{DynamoCatalog, KmsDataKeys, S3ObjectStore};
use backup_core::flows::open_manifest;
use backup_core::format::{BackupPlace, Manifest, ObjectKey, Prefix};
use backup_core::id::{OperationId, RegionName};
use backup_core::operation::{Operation, OperationKind, OperationState};
use backup_core::ports::{Catalog, Listing, ObjectStore};
use sha2::{Digest, Sha256};

use crate::fixture::Fixture;

/// The region of the first stack.
pub(crate) const HOME: &str = "us-east-1";
/// The others, as the local cloud has them.
pub(crate) const OTHERS: [&str; 2] = ["eu-west-1", "ap-southeast-1"];
const ROWS_MAX: u32 = 1000;

/// S3 in a region.
pub(crate) fn s3(fixture: &Fixture, region: &'static str) -> aws_sdk_s3::Client {
    aws_sdk_s3::Client::new(&fixture.config.to_builder().region(Region::new(region)).build())
}

/// The name of a region's bucket.
pub(crate) fn bucket(fixture: &Fixture, region: &str) -> String {
    format!("{}-{region}", fixture.stack("Buckets"))
}

/// Every manifest that a region has is of a backup in the catalog, opens with that region's key, and every chunk it
/// names is there, with its length and SHA-256. Every backup that the catalog says is in a region has its manifest
/// there. Gives how many each region has. Nothing may run meanwhile.
///
/// What failed is promised to nobody, so the chunks of such a backup are not looked at.
pub(crate) fn every_backup_is_whole(fixture: &Fixture) -> BTreeMap<&'static str, usize> {
    let source = fixture.stack("Source").parse().unwrap();
    let (rows, audit) = (fixture.stack("CatalogTable"), fixture.stack("AuditTable"));
    let catalog = DynamoCatalog::new(&fixture.sdk(), rows, audit, source);
    let all = fixture.run(catalog.operations(OperationKind::Backup, ROWS_MAX)).unwrap();
    let mut counts = BTreeMap::new();
    for region in [HOME, OTHERS[0], OTHERS[1]] {
        let shelf = Shelf::of(fixture, region);
        let whole = fixture.run(shelf.look(&all));
        for row in all.iter().filter(|row| row.state == OperationState::Verified) {
            let detail = row.backup().unwrap();
            let is_going = detail.removal.as_ref().is_some_and(|it| it.begun);
            let is_promised = region == HOME || detail.replicas.contains_key(&shelf.region);
            assert!(is_going || !is_promised || whole.contains(&row.id), "{} is not in {region}", row.id);
        }
        counts.insert(region, whole.len());
    }
    counts
}

struct Shelf {
    region: RegionName,
    store: S3ObjectStore,
    keys: KmsDataKeys,
}

impl Shelf {
    fn of(fixture: &Fixture, region: &str) -> Self {
        let (sdk, name) = (fixture.sdk(), region.parse().unwrap());
        Self {
            region: name,
            store: S3ObjectStore::new(&sdk.in_region(name), bucket(fixture, region)),
            keys: KmsDataKeys::replica(&sdk, &fixture.stack("Key"), name).unwrap(),
        }
    }

    /// The backups that have a manifest here.
    async fn look(&self, rows: &[Operation]) -> BTreeSet<OperationId> {
        let mut whole = BTreeSet::new();
        for place in self.manifests().await {
            let (id, region) = (place.backup, self.region);
            let row = rows.iter().find(|row| row.id == id);
            let row = row.unwrap_or_else(|| panic!("{region} has a manifest of {id}, which is in no row"));
            let manifest = open_manifest(&self.store, &self.keys, row).await;
            let manifest = manifest.unwrap_or_else(|why| panic!("{region}: {why}"));
            if row.state != OperationState::Failed {
                self.check_chunks(place, &manifest).await;
            }
            whole.insert(id);
        }
        whole
    }

    async fn manifests(&self) -> Vec<BackupPlace> {
        let mut found = Vec::new();
        for prefix in [Prefix::Automated, Prefix::Manual] {
            let mut after: Option<String> = None;
            loop {
                let page = self.store.list(prefix, after.as_deref()).await.unwrap();
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                found.extend(page.iter().filter_map(|(path, _)| match ObjectKey::from_path(path) {
                    Some(ObjectKey::Manifest(place)) => Some(place),
                    _ => None,
                }));
            }
        }
        found
    }

    async fn check_chunks(&self, place: BackupPlace, manifest: &Manifest) {
        let (id, region) = (place.backup, self.region);
        for (_, chunk) in manifest.chunks() {
            let (stored, ordinal) = (&chunk.stored, chunk.ordinal);
            let object =
                self.store.get(ObjectKey::Chunk(place, ordinal, stored.attempt), stored.stored_bytes).await;
            let object = object.unwrap_or_else(|why| panic!("{region}: {id} lacks chunk {ordinal}: {why}"));
            let sha256 = hex::encode(Sha256::digest(&object));
            assert_eq!(sha256, stored.stored_sha256, "{region}: chunk {ordinal} of {id}");
        }
    }
}
