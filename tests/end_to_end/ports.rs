//! The real ports keep the contracts the ones in memory keep, and the real server does what the planner relies on.

use std::collections::BTreeSet;

use aws_config::Region;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration, StorageClass};
use backup_aws::{
    DynamoCatalog, DynamoTimeline, Home, KmsDataKeys, LockMode, OtherRegion, S3Locks, S3ObjectStore,
};
use backup_core::bson::{IdRange, IdValue, check_coverage, split_documents};
use backup_core::error::ErrorKind;
use backup_core::format::{BackupPlace, ObjectKey};
use backup_core::id::{ClusterTime, CollectionUuid};
use backup_core::operation::Trigger;
use backup_core::plan::ranges::ranges;
use backup_core::ports::{ChunkRead, ColdStorage, Locks, ObjectStore, Sampled, Shelves, Source, Temperature};
use backup_core::settings::Settings;
use backup_mongo::Cluster;
use backup_testkit::{contract, corpus};
use bson::oid::ObjectId;
use bson::{RawDocument, RawDocumentBuf, Regex, doc, rawdoc};
use bytes::Bytes;

use crate::chain::Chain;
use crate::fixture::Fixture;
use crate::hostile_events::fresh_id;
use crate::numbers::{Numbers, seeds};

/// Where these tests have a bucket and a replica of the key of their own.
const OTHER_REGION: &str = "eu-central-1";
const OTHER_BUCKET: &str = "contract-of-another-region";
const WITHOUT_LOCKS: &str = "contract-without-locks";

pub(crate) fn the_bucket_keeps_its_contract(fixture: &Fixture) {
    let (bucket, key) = (fixture.stack("Bucket"), fixture.stack("Key"));
    fixture.run(async {
        let store = S3ObjectStore::new(&fixture.sdk(), bucket.clone());
        contract::object_store(&store).await;
        contract::listing(&store, &store).await;
        contract::cold_storage(&store, &store).await;
        tells_what_is_archived(fixture, &store, &bucket).await;

        make_bucket_with_locks(fixture).await;
        let home = Home { sdk: &fixture.sdk(), bucket: &bucket, key: &key, lock: LockMode::Compliance };
        let other = OtherRegion::new(&home, OTHER_REGION.parse().unwrap(), OTHER_BUCKET.into()).unwrap();
        let region = other.ports();
        contract::object_store(region.store).await;
        contract::copies(&store, region.store, region.copies).await;
        contract::shelves(region.store, region.locks, region.shelves).await;
        shelves_of_a_deletion(fixture, &other.store).await;
        let without =
            S3Locks::new(S3ObjectStore::new(&fixture.sdk(), WITHOUT_LOCKS.into()), LockMode::Governance);
        refuses_without_locks(fixture, &without).await;
    });
}

async fn make_bucket_with_locks(fixture: &Fixture) {
    let place = BucketLocationConstraint::from(OTHER_REGION);
    let place = CreateBucketConfiguration::builder().location_constraint(place).build();
    let make =
        s3_of_other_region(fixture).create_bucket().bucket(OTHER_BUCKET).create_bucket_configuration(place);
    make.object_lock_enabled_for_bucket(true).send().await.unwrap();
}

fn s3_of_other_region(fixture: &Fixture) -> aws_sdk_s3::Client {
    aws_sdk_s3::Client::new(&fixture.config.to_builder().region(Region::new(OTHER_REGION)).build())
}

/// The local AWS moves nothing to an archive by itself, so the object is put there.
async fn tells_what_is_archived(fixture: &Fixture, store: &S3ObjectStore, bucket: &str) {
    let key = fresh_key();
    let put =
        aws_sdk_s3::Client::new(&fixture.config).put_object().bucket(bucket).key(key.to_path().unwrap());
    let put = put.storage_class(StorageClass::Glacier).body(Bytes::from_static(b"monthly").into());
    put.send().await.unwrap();
    assert_eq!(store.temperature(key).await.unwrap(), Temperature::Frozen);
    let refused = store.get(key, 100).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    assert!(refused.hint_text().unwrap().contains("cold storage"));
    for _ in 0..2 {
        store.thaw(key).await.unwrap();
        assert_eq!(store.temperature(key).await.unwrap(), Temperature::Thawing);
    }
}

/// The mark of a deletion is listed, and goes as every version does.
async fn shelves_of_a_deletion(fixture: &Fixture, store: &S3ObjectStore) {
    let key = fresh_key();
    store.put(key, Bytes::from_static(b"hidden")).await.unwrap();
    let delete = s3_of_other_region(fixture).delete_object().bucket(OTHER_BUCKET).key(key.to_path().unwrap());
    delete.send().await.unwrap();
    assert_eq!(store.size(key).await.unwrap(), None);
    let mut bytes: Vec<u64> = store.versions_of(key).await.unwrap().iter().map(|it| it.bytes).collect();
    bytes.sort_unstable();
    assert_eq!(bytes, [0, 6]);
    let all = store.versions_of(key).await.unwrap();
    assert!(store.remove(&all).await.unwrap().is_empty());
    assert!(store.versions_of(key).await.unwrap().is_empty());
}

async fn refuses_without_locks(fixture: &Fixture, locks: &S3Locks) {
    let (s3, key) = (aws_sdk_s3::Client::new(&fixture.config), fresh_key());
    s3.create_bucket().bucket(WITHOUT_LOCKS).send().await.unwrap();
    let put = s3.put_object().bucket(WITHOUT_LOCKS).key(key.to_path().unwrap());
    put.body(Bytes::from_static(b"free").into()).send().await.unwrap();
    let refused = locks.lock(key, 4_000_000_000_000).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
}

fn fresh_key() -> ObjectKey {
    ObjectKey::ChunkResult(BackupPlace { trigger: Trigger::Manual, backup: fresh_id() }, 0)
}

pub(crate) fn the_key_service_keeps_its_contract(fixture: &Fixture) {
    let key = fixture.stack("Key");
    fixture.run(async {
        let home = KmsDataKeys::new(&fixture.sdk(), key.clone());
        contract::data_keys(&home).await;
        let kms = aws_sdk_kms::Client::new(&fixture.config);
        kms.replicate_key().key_id(&key).replica_region(OTHER_REGION).send().await.unwrap();
        let replica = KmsDataKeys::replica(&fixture.sdk(), &key, OTHER_REGION.parse().unwrap()).unwrap();
        contract::data_keys(&replica).await;
        contract::replica_keys(&home, &replica).await;
    });
}

pub(crate) fn the_catalog_keeps_its_contract(fixture: &Fixture) {
    let (rows, audit) = (fixture.stack("CatalogTable"), fixture.stack("AuditTable"));
    fixture.run(async {
        let source = "contract".parse().unwrap();
        let catalog = DynamoCatalog::new(&fixture.sdk(), rows, audit, source);
        contract::catalog_rows(&catalog).await;
        contract::catalog_ends(&catalog).await;
        contract::catalog_notes(&catalog).await;
        contract::catalog_leases(&catalog).await;
        contract::catalog_audit(&catalog).await;
        contract::catalog_watch(&catalog).await;
    });
}

pub(crate) fn the_timeline_keeps_its_contract(fixture: &Fixture) {
    let rows = fixture.stack("CatalogTable");
    fixture.run(async {
        let of = |source: &str| DynamoTimeline::new(&fixture.sdk(), rows.clone(), source.parse().unwrap());
        contract::timeline(&of("contract")).await;
        contract::timeline_comes_back(&of("contract-again")).await;
    });
}

/// For every number of parts, with every `_id` as a bound, and for random halves of them: each document is read exactly
/// once.
pub(crate) fn ranges_cover_every_id_of_every_type_once(fixture: &Fixture) {
    let (database, documents) = (fixture.database("ranges"), corpus::every_id());
    fixture.run(async {
        let mixed = database.collection::<RawDocumentBuf>("mixed");
        mixed.insert_many(&documents).await.unwrap();
        let cluster = Cluster::connect(&fixture.users().backup).await.unwrap();
        let uuid = cluster.namespaces("ranges").await.unwrap()[0].uuid.unwrap();
        let sorted = cluster.sample("ranges", "mixed", uuid, 1000).await.unwrap();
        assert_eq!(sorted.len(), documents.len(), "a sample of more than all is all");
        let mut plans: Vec<Vec<IdRange>> = (1..=60).map(|parts| ranges(&sorted, parts)).collect();
        for bound in sorted.iter().map(|it| &it.id).filter(|bound| bound.may_bound_a_range()) {
            let lower = IdRange { lower: None, upper: Some(bound.clone()) };
            plans.push(vec![lower, IdRange { lower: Some(bound.clone()), upper: None }]);
        }
        let at = Some(cluster.cluster_time().await.unwrap());
        for plan in plans {
            each_once(&cluster, uuid, at, &plan, documents.len()).await;
        }
        for seed in seeds(40) {
            let numbers = Numbers::new(seed);
            mixed.delete_many(doc! {}).await.unwrap();
            let some: Vec<_> = documents.iter().filter(|_| numbers.below(2) == 0).collect();
            mixed.insert_many(some.iter().copied()).await.unwrap();
            let sorted = cluster.sample("ranges", "mixed", uuid, 1000).await.unwrap();
            let plan = ranges(&sorted, u32::try_from(1 + numbers.below(20)).unwrap());
            let at = Some(cluster.cluster_time().await.unwrap());
            each_once(&cluster, uuid, at, &plan, some.len()).await;
        }
    });
    let odd = doc! { "_id": Regex { pattern: bson::cstr!("x").into(), options: bson::cstr!("").into() } };
    let refused = fixture.run(async { database.collection("mixed").insert_one(odd).await });
    assert!(refused.is_err(), "a regular expression cannot be an _id, so it never bounds a range");
}

async fn each_once(
    cluster: &Cluster,
    uuid: CollectionUuid,
    at: Option<ClusterTime>,
    plan: &[IdRange],
    documents: usize,
) {
    check_coverage(plan).unwrap();
    let mut seen = Vec::new();
    for range in plan {
        seen.extend(try_read(cluster, "ranges", "mixed", uuid, range.clone(), at).await.unwrap());
    }
    assert_eq!(seen.len(), documents, "{} ranges", plan.len());
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), documents, "{} ranges", plan.len());
}

/// What a collection holds, `_id`s and sizes, and how many chunks it should have at least.
type Shape = (&'static str, fn(i32) -> RawDocumentBuf, i32);

/// However `_id`s and sizes are spread, no chunk is twice as large as it should be.
pub(crate) fn chunks_are_even_however_ids_and_sizes_are_spread(fixture: &Fixture) {
    const TARGET_BYTES: u64 = 256 * 1024;
    fn text(bytes: usize) -> String {
        "x".repeat(bytes)
    }
    let shapes: [Shape; 6] = [
        ("monotonic", |n| rawdoc! { "_id": n, "t": text(80) }, 30_000),
        ("object ids", |_| rawdoc! { "_id": ObjectId::new(), "t": text(80) }, 30_000),
        (
            "skewed",
            |n| rawdoc! { "_id": if n % 10 == 0 { format!("{n}") } else { format!("aaaa{n}") }, "t": text(60) },
            30_000,
        ),
        (
            "of two types",
            |n| {
                if n < 27_000 {
                    rawdoc! { "_id": n }
                } else {
                    rawdoc! { "_id": { "n": n }, "t": text(900) }
                }
            },
            30_000,
        ),
        ("large at the end", |n| rawdoc! { "_id": n, "t": text(if n < 9000 { 50 } else { 8000 }) }, 10_000),
        (
            "many",
            |n| rawdoc! { "_id": n.wrapping_mul(-1_640_531_527), "t": text(if n < 150_000 { 10 } else { 90 }) },
            250_000,
        ),
    ];
    let database = fixture.database("even");
    fixture.run(async {
        let cluster = Cluster::connect(&fixture.users().backup).await.unwrap();
        for (name, document, count) in shapes {
            let all: Vec<RawDocumentBuf> = (0..count).map(document).collect();
            for batch in all.chunks(20_000) {
                database.collection::<RawDocumentBuf>(name).insert_many(batch).await.unwrap();
            }
            let settings = Settings { chunk_target_bytes: TARGET_BYTES, ..Settings::default() };
            let manifest = Chain::new(cluster.clone(), settings).back_up("even", &[name]).await.unwrap();
            let sizes: Vec<u64> = manifest.chunks().map(|(_, chunk)| chunk.stored.bson_bytes).collect();
            let largest = *sizes.iter().max().unwrap();
            eprintln!("{name}: {} chunks, the largest has {largest} bytes", sizes.len());
            assert!(largest <= 2 * TARGET_BYTES && sizes.len() > 2, "{name}: {sizes:?}");
            database.collection::<RawDocumentBuf>(name).drop().await.unwrap();
        }
    });
}

async fn try_read(
    cluster: &Cluster,
    database: &str,
    name: &str,
    uuid: CollectionUuid,
    range: IdRange,
    at: Option<ClusterTime>,
) -> backup_core::Result<Vec<Vec<u8>>> {
    let read = ChunkRead {
        database: database.into(),
        name: name.into(),
        uuid,
        range,
        at,
        document_bytes_hint: 200_000,
    };
    let (mut documents, mut stream) = (Vec::new(), cluster.read(&read).await?);
    while let Some(batch) = stream.next_batch().await? {
        for document in split_documents(&batch) {
            documents.push(document?.to_vec());
        }
    }
    Ok(documents)
}

/// What was dropped, renamed or re-created after T is refused, never read as empty or mixed.
pub(crate) fn a_read_at_an_instant_is_exact_or_refused(fixture: &Fixture) {
    let database = fixture.database("instants");
    for name in ["kept", "dropped", "renamed", "again"] {
        fixture.fill(&database, name, 0, 300);
    }
    fixture.run(async {
        let cluster = Cluster::connect(&fixture.users().backup).await.unwrap();
        let found = cluster.namespaces("instants").await.unwrap();
        let uuid = |name: &str| found.iter().find(|it| it.name == name).unwrap().uuid.unwrap();
        let at = Some(cluster.cluster_time().await.unwrap());
        let read =
            async |name: &str| try_read(&cluster, "instants", name, uuid(name), IdRange::ALL, at).await;
        let before = read("kept").await.unwrap();
        assert_eq!(before.len(), 300);
        let kept = database.collection::<bson::Document>("kept");
        kept.delete_many(doc! { "_id": { "$lt": 100 } }).await.unwrap();
        kept.update_many(doc! {}, doc! { "$set": { "text": "changed" } }).await.unwrap();
        kept.insert_one(doc! { "_id": 1000 }).await.unwrap();
        assert!(read("kept").await.unwrap() == before, "byte for byte what it was at T");
        for name in ["dropped", "again"] {
            database.collection::<bson::Document>(name).drop().await.unwrap();
        }
        database.collection("again").insert_one(doc! { "_id": 1 }).await.unwrap();
        let rename = doc! { "renameCollection": "instants.renamed", "to": "instants.renamed2" };
        fixture.client.database("admin").run_command(rename).await.unwrap();
        for name in ["dropped", "again", "renamed"] {
            assert_eq!(read(name).await.unwrap_err().kind(), ErrorKind::SnapshotLost, "{name}");
        }
        let future = Some(ClusterTime { seconds: u32::MAX - 10, ordinal: 1 });
        let refused = try_read(&cluster, "instants", "kept", uuid("kept"), IdRange::ALL, future).await;
        assert!(refused.is_err(), "an instant to come");
        let ids = cluster.sample("instants", "kept", uuid("kept"), 50).await.unwrap();
        let in_order = |pair: &[Sampled]| number(&pair[0].id) <= number(&pair[1].id);
        assert!(ids.len() > 20 && ids.windows(2).all(in_order), "the server sorts a sample");
    });
}

fn number(id: &IdValue) -> i32 {
    let document: &RawDocument = id.as_document();
    document.get_i32("_id").unwrap()
}

pub(crate) fn a_wrong_connection_string_is_a_clear_error(fixture: &Fixture) {
    let secret = "s3cret-canary";
    let check = |uri: String, kind: ErrorKind| {
        let told = fixture.run(async {
            match Cluster::connect(&uri).await {
                Ok(cluster) => cluster.preflight().await.map(|_| ()),
                Err(why) => Err(why),
            }
        });
        let told = told.expect_err(&uri);
        assert_eq!(told.kind(), kind, "{told}");
        assert!(!format!("{told} {told:?} {:?}", told.hint_text()).contains(secret), "{told} tells a secret");
    };
    let good = fixture.users().backup;
    let host = good.split('@').nth(1).unwrap().split('/').next().unwrap();
    check(format!("nonsense {secret}"), ErrorKind::Invalid);
    check(format!("mongodb://u:{secret}@{host}:x/"), ErrorKind::Invalid);
    check(format!("mongodb://nightsafe-backup:{secret}@{host}/?authSource=admin"), ErrorKind::Denied);
    check(format!("mongodb://u:{secret}@{host}/?tls=true&tlsInsecure=true"), ErrorKind::Refused);
    check(format!("mongodb://u:{secret}@db.example.com/"), ErrorKind::Refused);
    check(
        format!("mongodb://u:{secret}@127.0.0.1:1/?directConnection=true&serverSelectionTimeoutMS=500"),
        ErrorKind::Transient,
    );
}
