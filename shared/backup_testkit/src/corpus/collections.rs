//! Collections of every kind, with every option, and every kind of index.

use bson::{Binary, DateTime, RawDocumentBuf, rawdoc, spec::BinarySubtype};

use super::inserts;

/// The year 2100: nothing of the corpus expires while it is tested.
const FAR_MILLIS: i64 = 4_102_444_800_000;
/// 1990, 2026 and the day before 1970: time series whose buckets are old, and out of the usual range.
const ERAS_MILLIS: [i64; 3] = [631_152_000_000, 1_790_000_000_000, -86_400_000];

pub(super) fn all() -> Vec<RawDocumentBuf> {
    [ordinary(), kept_otherwise(), time_series(), views(), indexes(), files()].concat()
}

fn numbered(count: i32) -> Vec<RawDocumentBuf> {
    let document = |n: i32| {
        rawdoc! {
            "_id": n, "a": n % 7, "b": n / 7, "c": format!("text {n} größer"), "d": -n,
            "at": DateTime::from_millis(FAR_MILLIS + i64::from(n)),
            "place": [f64::from(n % 180), f64::from(n % 90)],
            "area": { "type": "Point", "coordinates": [f64::from(n % 180), f64::from(n % 90)] },
            "sub": { "x": n, "y": { "z": [n, n + 1] } }, "language": "german",
        }
    };
    (0..count).map(document).collect()
}

fn ordinary() -> Vec<RawDocumentBuf> {
    let violating = [rawdoc! { "_id": 1, "a": "not a number" }, rawdoc! { "_id": 2 }];
    let schema = rawdoc! { "$jsonSchema": { "bsonType": "object", "required": ["a"], "properties": { "a": { "bsonType": "int" } } } };
    [
        vec![
            rawdoc! { "create": "empty" },
            rawdoc! { "create": "strict", "validator": schema, "validationLevel": "strict", "validationAction": "error" },
            rawdoc! { "create": "lenient", "validator": { "$expr": { "$gt": ["$a", "$b"] } }, "validationLevel": "moderate", "validationAction": "warn" },
            rawdoc! { "create": "off", "validator": { "a": { "$exists": true } }, "validationLevel": "off" },
            rawdoc! { "create": "german", "collation": { "locale": "de", "strength": 1, "caseLevel": true, "numericOrdering": true } },
            rawdoc! { "create": "pre-images", "changeStreamPreAndPostImages": { "enabled": true } },
            rawdoc! { "create": "engine", "storageEngine": { "wiredTiger": { "configString": "block_compressor=zlib" } },
            "indexOptionDefaults": { "storageEngine": { "wiredTiger": { "configString": "prefix_compression=false" } } } },
        ],
        inserts("one", &[rawdoc! { "_id": "only" }]),
        inserts("strict", &violating),
        inserts("lenient", &violating),
        inserts("off", &violating),
        inserts("german", &["Äpfel", "a10", "a9", "öl", "zebra"].map(|w| rawdoc! { "_id": w, "w": w })),
        inserts("pre-images", &numbered(20)),
        inserts("engine", &numbered(20)),
    ]
    .concat()
}

fn kept_otherwise() -> Vec<RawDocumentBuf> {
    let backwards: Vec<_> = numbered(300).into_iter().rev().collect();
    [
        vec![
            rawdoc! { "create": "capped", "capped": true, "size": 1_048_576, "max": 1000 },
            rawdoc! { "create": "wrapped", "capped": true, "size": 8192 },
            rawdoc! { "create": "capped, empty", "capped": true, "size": 4096, "max": 1 },
            rawdoc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true, "name": "by its id" } },
            rawdoc! { "create": "clustered, expiring", "clusteredIndex": { "key": { "_id": 1 }, "unique": true }, "expireAfterSeconds": 3600 },
        ],
        inserts("capped", &backwards),
        inserts("wrapped", &backwards),
        inserts("clustered", &numbered(300)),
        inserts("clustered", &super::every_id()[..3]),
        inserts(
            "clustered, expiring",
            &[rawdoc! { "_id": DateTime::from_millis(FAR_MILLIS) }, rawdoc! { "_id": "never" }],
        ),
    ]
    .concat()
}

fn time_series() -> Vec<RawDocumentBuf> {
    let mut commands = vec![
        rawdoc! { "create": "weather", "timeseries": { "timeField": "t", "metaField": "m", "granularity": "minutes" } },
        rawdoc! { "create": "expiring series", "timeseries": { "timeField": "t", "metaField": "m" }, "expireAfterSeconds": 1_000_000_000 },
        rawdoc! { "create": "plain series", "timeseries": { "timeField": "when" } },
        rawdoc! { "create": "collated series", "timeseries": { "timeField": "t", "metaField": "m", "granularity": "hours" }, "collation": { "locale": "fr" } },
        rawdoc! { "createIndexes": "weather", "indexes": [{ "key": { "m.station": 1, "t": -1 }, "name": "by station" }, { "key": { "place": "2dsphere" }, "name": "near" }] },
    ];
    let metas = [rawdoc! { "station": 1 }, rawdoc! { "station": "α", "x": { "y": 2 } }, rawdoc! {}];
    let mut measures = Vec::new();
    for era in ERAS_MILLIS {
        for n in 0..200_i32 {
            let at = DateTime::from_millis(era + i64::from(n) * 400_000);
            let meta = metas[usize::try_from(n % 3).unwrap()].clone();
            measures.push(rawdoc! { "t": at, "when": at, "m": meta, "v": f64::from(n) / 3.0, "n": n, "place": { "type": "Point", "coordinates": [n % 90, 5] } });
        }
    }
    let recent: Vec<_> = measures[200..400].to_vec();
    commands.push(rawdoc! { "insert": "expiring series", "documents": super::array(&recent) });
    measures
        .push(rawdoc! { "t": DateTime::from_millis(0), "when": DateTime::from_millis(0), "odd": "no meta" });
    for name in ["weather", "plain series", "collated series"] {
        let insert = rawdoc! { "insert": name, "documents": super::array(&measures) };
        commands.push(insert); // a time series refuses to bypass validation
    }
    commands
}

fn views() -> Vec<RawDocumentBuf> {
    vec![
        rawdoc! { "create": "view", "viewOn": "indexed", "pipeline": [{ "$match": { "a": { "$gt": 3 } } }, { "$set": { "a.b": "$$NOW" } }] },
        rawdoc! { "create": "a view of a view", "viewOn": "view", "pipeline": [{ "$limit": 3 }] },
        rawdoc! { "create": "collated view", "viewOn": "german", "pipeline": [], "collation": { "locale": "de", "strength": 1, "caseLevel": true, "numericOrdering": true } },
        rawdoc! { "create": "view of a series", "viewOn": "weather", "pipeline": [{ "$group": { "_id": "$m", "n": { "$sum": 1 } } }] },
        rawdoc! { "create": "view of nothing", "viewOn": "there is none", "pipeline": [] },
        rawdoc! { "create": "joined", "viewOn": "indexed", "pipeline": [{ "$lookup": { "from": "one", "localField": "c", "foreignField": "_id", "as": "one" } }] },
    ]
}

fn indexes() -> Vec<RawDocumentBuf> {
    let kinds = rawdoc! { "createIndexes": "indexed", "indexes": [
        { "key": { "a": 1, "b": -1 }, "name": "compound" },
        { "key": { "b": 1, "a": 1, "d": 1 }, "name": "unique", "unique": true },
        { "key": { "missing": 1 }, "name": "sparse", "sparse": true },
        { "key": { "missing": 1 }, "name": "same key, unique and sparse", "unique": true, "sparse": true },
        { "key": { "a": 1 }, "name": "partial", "partialFilterExpression": { "a": { "$gt": 5 } } },
        { "key": { "a": 1 }, "name": "partial otherwise", "partialFilterExpression": { "b": { "$exists": true } } },
        { "key": { "a": 1 }, "name": "same key, collated", "collation": { "locale": "de" } },
        { "key": { "a": 1 }, "name": "same key, plain" },
        { "key": { "at": 1 }, "name": "ttl", "expireAfterSeconds": 3600 },
        { "key": { "expires": 1 }, "name": "ttl partial", "expireAfterSeconds": 0, "partialFilterExpression": { "a": 1 } },
        { "key": { "d": 1 }, "name": "hidden", "hidden": true },
        { "key": { "$**": 1 }, "name": "wildcard", "wildcardProjection": { "sub.x": 1, "c": 1 } },
        { "key": { "sub.$**": 1 }, "name": "wildcard below" },
        { "key": { "a": 1, "c": "text", "_fts2": "text", "b": 1 }, "name": "text", "weights": { "c": 10, "_fts2": 3 }, "default_language": "german", "language_override": "language" },
        { "key": { "place": "2d", "a": 1 }, "name": "flat", "bits": 20, "min": -200.0, "max": 200.0 },
        { "key": { "area": "2dsphere", "a": 1 }, "name": "sphere" },
        { "key": { "area": "2dsphere" }, "name": "sphere 2", "2dsphereIndexVersion": 2 },
        { "key": { "c": "hashed" }, "name": "hashed" },
        { "key": { "a": 1, "d": "hashed" }, "name": "compound hashed" },
        { "key": { "_id": "hashed" }, "name": "hashed id" },
        { "key": { "_id": 1, "a": 1 }, "name": "id and more" },
        { "key": { "b": 1.5 }, "name": "a half" },
        { "key": { "b": -3_i64 }, "name": "minus three" },
        { "key": { "sub.y.z": 1 }, "name": "multikey \n $ . name", "background": true },
        { "key": { "c": 1 }, "name": "with engine", "storageEngine": { "wiredTiger": { "configString": "prefix_compression=false" } } },
    ] };
    let german = rawdoc! { "createIndexes": "german", "indexes": [
        { "key": { "w": 1 }, "name": "as the collection" },
        { "key": { "w": 1 }, "name": "simple", "collation": { "locale": "simple" } },
        { "key": { "w": 1 }, "name": "swedish", "collation": { "locale": "sv" } },
        { "key": { "w": "text" }, "name": "words", "default_language": "none", "collation": { "locale": "simple" } },
    ] };
    let all = rawdoc! { "createIndexes": "everywhere", "indexes": [
        { "key": { "$**": "text" }, "name": "all text" },
        { "key": { "$**": 1 }, "name": "all but", "wildcardProjection": { "c": 0, "sub": 0 } },
    ] };
    let old = rawdoc! { "createIndexes": "of old", "indexes": [{ "key": { "a": 1 }, "name": "v1", "v": 1 }] };
    let prepared = [
        rawdoc! { "createIndexes": "prepared", "indexes": [{ "key": { "a": 1 }, "name": "a" }, { "key": { "b": 1 }, "name": "b", "unique": true }] },
        rawdoc! { "collMod": "prepared", "index": { "name": "a", "prepareUnique": true } },
    ];
    let clustered = rawdoc! { "createIndexes": "clustered", "indexes": [{ "key": { "a": 1 }, "name": "a" }] };
    [
        inserts("indexed", &numbered(200)),
        inserts("everywhere", &numbered(30)),
        inserts("of old", &numbered(30)),
        vec![kinds, german, all, old, clustered],
        prepared.into(),
        vec![rawdoc! { "createIndexes": "capped", "indexes": [{ "key": { "b": 1 }, "name": "b" }] }],
    ]
    .concat()
}

/// `GridFS` as drivers lay it out: a file of several pieces, an empty one, and one with a name from another world.
fn files() -> Vec<RawDocumentBuf> {
    const PIECE_BYTES: usize = 255 * 1024;
    let piece = |file: i32, n: i32| {
        let bytes = (0..PIECE_BYTES).map(|at| u8::try_from(at * 7 % 253).unwrap()).collect();
        rawdoc! { "_id": file * 100 + n, "files_id": file, "n": n, "data": Binary { subtype: BinarySubtype::Generic, bytes } }
    };
    let file = |id: i32, pieces: i64, name: &str| {
        let length = pieces * i64::try_from(PIECE_BYTES).unwrap();
        rawdoc! { "_id": id, "length": length, "chunkSize": 261_120, "uploadDate": DateTime::from_millis(0), "filename": name }
    };
    [
        inserts("fs.files", &[file(1, 12, "a.pdf"), file(2, 0, ""), file(3, 1, "../\u{202e}\n")]),
        inserts("fs.chunks", &(0..12).map(|n| piece(1, n)).chain([piece(3, 0)]).collect::<Vec<_>>()),
        vec![
            rawdoc! { "createIndexes": "fs.chunks", "indexes": [{ "key": { "files_id": 1, "n": 1 }, "name": "files_id_1_n_1", "unique": true }] },
            rawdoc! { "createIndexes": "fs.files", "indexes": [{ "key": { "filename": 1, "uploadDate": 1 }, "name": "filename_1_uploadDate_1" }] },
        ],
    ]
    .concat()
}
