//! `./backup.sh` as an operator uses it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::fixture::Fixture;

/// A second backup is refused with who holds the lease; `--force` takes over, and the first writes nothing more.
pub(crate) fn two_at_once_and_force(fixture: &Fixture) {
    let database = fixture.database("contended");
    fixture.fill(&database, "large", 0, 30_000);
    let first = fixture
        .shell("./backup.sh", &["-d", "contended"])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let first = first.unwrap();
    let began = Instant::now();
    let holder = loop {
        let holder = fixture.lease_holder();
        if !holder.is_null() {
            break holder;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "the first backup never took the lease");
    };
    let (code, _, told) = fixture.output("./backup.sh", &["-d", "contended"]);
    assert_eq!(code, 6, "{told}");
    assert!(told.contains(holder.as_str().unwrap()) && told.contains("asked for by"), "{told}");
    let third = fixture.json("./backup.sh", &["-d", "contended", "--force"]);
    assert_eq!(third["state"], "verified");
    let first = first.wait_with_output().unwrap();
    let told = String::from_utf8(first.stderr).unwrap();
    assert_eq!(first.status.code(), Some(6), "{told}");
    assert!(told.contains("was taken over"), "{told}");
    assert!(fixture.lease_holder().is_null());
    let shown = fixture.json("nightsafe", &["show", holder.as_str().unwrap()]);
    assert_eq!(shown["state"], "failed");
    assert!(shown["detail"]["backup"]["manifest_sha256"].is_null(), "it never got a manifest");
}

pub(crate) fn wrong_names_are_clear_errors(fixture: &Fixture) {
    let database = fixture.database("named");
    fixture.fill(&database, "there", 0, 10);
    for (arguments, code, says) in [
        (vec!["-d", "nowhere"], 5, "no such database"),
        (vec!["-d", "named", "-c", "there,missing"], 5, "no such collection"),
        (vec!["-d", "a/b"], 2, "use database"),
        (vec![], 2, "--database"),
        (vec!["-d", "named", "--nonsense"], 2, "--nonsense"),
        (vec!["-d", "named", "--stack", "other"], 5, "other"),
    ] {
        let (found, _, told) = fixture.output("./backup.sh", &arguments);
        assert_eq!(found, code, "{arguments:?}: {told}");
        assert!(told.contains(says), "{arguments:?}: {told}");
    }
    let (code, _, told) = fixture.output("./restore.sh", &["-d", "named", "--full"]);
    assert_eq!(code, 5, "{told}");
    assert!(told.contains("no verified backup"), "{told}");
    let shown = fixture.json("nightsafe", &["list", "--limit", "3"]);
    assert!(!shown["operations"].as_array().unwrap().is_empty());
    assert!(fixture.lease_holder().is_null());
}
