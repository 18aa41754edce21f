//! The hard corpus through the whole chain: backed up, dropped, restored, compared by `dbHash`, options and indexes.

use backup_testkit::corpus::{CorpusDatabase, crowded_database, hard_databases};
use bson::doc;
use local::demo::proof;
use mongodb::Database;

use crate::fixture::Fixture;

/// Empties the corpus's database and runs its commands.
fn load(fixture: &Fixture, corpus: &CorpusDatabase) -> Database {
    let database = fixture.database(&corpus.name);
    fixture.run(async {
        for command in &corpus.commands {
            let reply = database.run_raw_command(command.clone()).await;
            let reply = reply.unwrap_or_else(|why| panic!("{:?}: {why}", command.iter().next()));
            assert!(!reply.contains_key("writeErrors"), "{:?}: {reply}", command.iter().next());
        }
    });
    database
}

fn survives(fixture: &Fixture, corpus: &CorpusDatabase) {
    let database = load(fixture, corpus);
    let (hashes, metadata) = (fixture.hashes(&database), fixture.metadata(&database));
    let backup = fixture.back_up(&corpus.name);
    let shown = fixture.json("nightsafe", &["show", backup["id"].as_str().unwrap()]);
    for entry in shown["namespaces"].as_array().unwrap() {
        assert_ne!(entry["label"], "not-captured", "{entry}");
    }
    fixture.run(async { database.drop().await }).unwrap();
    let restore = fixture.json("./restore.sh", &["-d", &corpus.name, "--full"]);
    assert_eq!(restore["state"], "restored");
    proof::ensure_equal("documents", &hashes, &fixture.hashes(&database)).unwrap();
    proof::ensure_equal("options and indexes", &metadata, &fixture.metadata(&database)).unwrap();
    for name in metadata.keys().filter(|name| name.starts_with("system.buckets.")) {
        let validated = fixture.command(&database, doc! { "validate": name });
        assert!(validated.get_bool("valid").unwrap(), "{name}: {validated}");
    }
    fixture.run(async { database.drop().await }).unwrap();
}

pub(crate) fn everything_a_server_takes_survives(fixture: &Fixture) {
    for corpus in hard_databases() {
        survives(fixture, &corpus);
    }
}

pub(crate) fn two_thousand_tiny_collections_survive(fixture: &Fixture) {
    survives(fixture, &crowded_database(2000));
}
