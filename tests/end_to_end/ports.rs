//! The real ports keep the contracts the ones in memory keep, and the real server does what the planner relies on.

use std::collections::BTreeSet;

use backup_aws::{DynamoCatalog, KmsDataKeys, S3ObjectStore};
use backup_core::bson::{IdRange, IdValue, check_coverage, split_documents};
use backup_core::error::ErrorKind;
use backup_core::plan::ranges::ranges;
use backup_core::ports::{ChunkRead, Sampled, Source};
use backup_mongo::Cluster;
use backup_testkit::contract;
use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, RawDocument, Regex, Timestamp, doc};

use crate::fixture::Fixture;

pub(crate) fn the_bucket_keeps_its_contract(fixture: &Fixture) {
    let bucket = fixture.stack("Bucket");
    fixture.run(async { contract::object_store(&S3ObjectStore::new(&fixture.sdk(), bucket)).await });
}

pub(crate) fn the_key_service_keeps_its_contract(fixture: &Fixture) {
    let key = fixture.stack("Key");
    fixture.run(async { contract::data_keys(&KmsDataKeys::new(&fixture.sdk(), key)).await });
}

pub(crate) fn the_catalog_keeps_its_contract(fixture: &Fixture) {
    let (rows, audit) = (fixture.stack("CatalogTable"), fixture.stack("AuditTable"));
    fixture.run(async {
        let source = "contract".parse().unwrap();
        let catalog = DynamoCatalog::new(&fixture.sdk(), rows, audit, source);
        contract::catalog_rows(&catalog).await;
        contract::catalog_leases(&catalog).await;
        contract::catalog_audit(&catalog).await;
    });
}

/// One `_id` or more of every type that may be one.
fn ids_of_every_type() -> Vec<Bson> {
    let binary = |subtype, bytes: &[u8]| Bson::Binary(Binary { subtype, bytes: bytes.to_vec() });
    vec![
        Bson::MinKey,
        Bson::Null,
        Bson::Double(f64::NAN),
        Bson::Double(f64::NEG_INFINITY),
        Bson::Int64(i64::MIN),
        Bson::Double(-1.5),
        Bson::Int32(0),
        Bson::Int32(7),
        Bson::Decimal128("7.5".parse::<Decimal128>().unwrap()),
        Bson::Int64(i64::MAX),
        Bson::Double(f64::INFINITY),
        Bson::String(String::new()),
        Bson::String("a".into()),
        Bson::String("ä".into()),
        Bson::Document(doc! {}),
        Bson::Document(doc! { "a": 1 }),
        Bson::Document(doc! { "a": "b", "c": [1] }),
        binary(BinarySubtype::Generic, &[]),
        binary(BinarySubtype::Generic, &[1, 2, 3]),
        binary(BinarySubtype::Uuid, &[9; 16]),
        binary(BinarySubtype::UserDefined(0x80), &[1]),
        Bson::ObjectId(ObjectId::from_bytes([1; 12])),
        Bson::ObjectId(ObjectId::from_bytes([200; 12])),
        Bson::Boolean(false),
        Bson::Boolean(true),
        Bson::DateTime(DateTime::from_millis(-1)),
        Bson::DateTime(DateTime::from_millis(1_795_312_800_000)),
        Bson::Timestamp(Timestamp { time: 1, increment: 1 }),
        Bson::JavaScriptCode("f()".into()),
        Bson::MaxKey,
    ]
}

/// For every number of parts, and with every `_id` as a bound: each document is read exactly once.
pub(crate) fn ranges_cover_every_id_of_every_type_once(fixture: &Fixture) {
    let database = fixture.database("ranges");
    let ids = ids_of_every_type();
    for id in &ids {
        fixture
            .run(async { database.collection("mixed").insert_one(doc! { "_id": id.clone() }).await })
            .unwrap();
    }
    fixture.run(async {
        let cluster = Cluster::connect(&fixture.users().backup).await.unwrap();
        let found = cluster.namespaces("ranges").await.unwrap();
        let uuid = found[0].uuid.unwrap();
        let at = cluster.cluster_time().await.unwrap();
        let all = read(&cluster, uuid, IdRange::ALL, Some(at)).await;
        assert_eq!(all.len(), ids.len());
        let sorted = cluster.sample("ranges", "mixed", uuid, 1000).await.unwrap();
        assert_eq!(sorted.len(), ids.len(), "a sample of more than all is all");
        let mut plans: Vec<Vec<IdRange>> = (1..=40).map(|parts| ranges(&sorted, parts)).collect();
        for bound in sorted.iter().map(|it| &it.id).filter(|bound| bound.may_bound_a_range()) {
            let (lower, upper) = (
                IdRange { lower: None, upper: Some(bound.clone()) },
                IdRange { lower: Some(bound.clone()), upper: None },
            );
            plans.push(vec![lower, upper]);
        }
        for plan in plans {
            check_coverage(&plan).unwrap();
            let mut seen = Vec::new();
            for range in &plan {
                seen.extend(read(&cluster, uuid, range.clone(), Some(at)).await);
            }
            assert_eq!(seen.len(), ids.len(), "{} ranges", plan.len());
            assert_eq!(
                seen.into_iter().collect::<BTreeSet<_>>(),
                all.iter().cloned().collect(),
                "{} ranges",
                plan.len()
            );
        }
    });
    let odd = doc! { "_id": Regex { pattern: bson::cstr!("x").into(), options: bson::cstr!("").into() } };
    let refused = fixture.run(async { database.collection("mixed").insert_one(odd).await });
    assert!(refused.is_err(), "a regular expression cannot be an _id, so it never bounds a range");
}

async fn read(
    cluster: &Cluster,
    uuid: backup_core::id::CollectionUuid,
    range: IdRange,
    at: Option<backup_core::id::ClusterTime>,
) -> Vec<Vec<u8>> {
    try_read(cluster, "ranges", "mixed", uuid, range, at).await.unwrap()
}

async fn try_read(
    cluster: &Cluster,
    database: &str,
    name: &str,
    uuid: backup_core::id::CollectionUuid,
    range: IdRange,
    at: Option<backup_core::id::ClusterTime>,
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
        let future = Some(backup_core::id::ClusterTime { seconds: u32::MAX - 10, ordinal: 1 });
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
