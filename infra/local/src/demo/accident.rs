//! What users fear: a collection is dropped and another overwritten, and nobody notices at once. Both come back
//! as they were in the second before, the rest of the database stays as it is now, and the server's own hashes
//! are the proof.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use aws_sdk_lambda::primitives::Blob;
use backup_core::id::ClusterTime;
use bson::Document;
use mongodb::Database;
use serde_json::Value;

use super::data::{self, DROPPED, OVERWRITTEN, WRITTEN_ON};
use super::phases::Phases;
use super::{DATABASE, proof, shell};
use crate::Cloud;

/// One call is enough, unless the function's time is short.
const CAPTURES_MAX: u32 = 20;

type Hashes = BTreeMap<String, String>;
type Metadata = BTreeMap<String, (Document, Vec<Document>)>;

/// The database before the accident, as the server tells it.
struct Before {
    /// The newest write; the accident is in a later second.
    time: ClusterTime,
    hashes: Hashes,
    metadata: Metadata,
}

/// Lets the accident happen, and undoes it.
pub(super) async fn undo(cloud: &Cloud, database: &Database, phases: &mut Phases) -> Result<()> {
    let before = work(database, phases).await?;
    let after = happen(database, phases, &before).await?;

    phases.begin("capture");
    let function = capture(cloud, phases, before.time).await?;
    phases.end(format!("{function} called, as its schedule does every five minutes"));

    phases.begin("undo the accident");
    let (collections, second) = (format!("{DROPPED},{OVERWRITTEN}"), before.time.utc());
    let (collections, second) = (collections.as_str(), second.as_str());
    let words = ["./restore.sh", "-d", DATABASE, "-c", collections, "-t", second, "--yes", "--json"];
    let restore = shell::json(cloud, phases, &words).await?;
    ensure!(restore["state"] == "restored", "the restore is {}", restore["state"]);
    phases.end(format!("{} documents as of the second before", restore["totals"]["documents"]));

    prove(database, phases, &before, after).await
}

async fn work(database: &Database, phases: &mut Phases) -> Result<Before> {
    phases.begin("the day goes on");
    let touched = data::go_on(database).await?;
    let (hashes, metadata) = (proof::db_hash(database).await?, proof::metadata(database).await?);
    let time = proof::last_write(database).await?;
    wait_for_the_second_after(time).await;
    phases.end(format!(
        "{touched} documents written, changed or deleted in all collections, until {}",
        time.utc()
    ));
    Ok(Before { time, hashes, metadata })
}

/// The accident, and what is written after it; gives the hashes then.
async fn happen(database: &Database, phases: &mut Phases, before: &Before) -> Result<Hashes> {
    phases.begin("accident");
    let overwritten = data::accident(database).await?;
    let later = data::write_on(database).await?;
    let after = proof::db_hash(database).await?;
    ensure!(!after.contains_key(DROPPED), "{DROPPED} is still there");
    for name in [OVERWRITTEN, WRITTEN_ON] {
        ensure!(after.get(name) != before.hashes.get(name), "{name} is still what it was");
    }
    phases.end(format!(
        "{DROPPED} dropped, all {overwritten} {OVERWRITTEN} overwritten; then {later} new {WRITTEN_ON}"
    ));
    Ok(after)
}

/// What was lost is as it was before, all else as it was after.
async fn prove(database: &Database, phases: &mut Phases, before: &Before, after: Hashes) -> Result<()> {
    phases.begin("prove");
    let lost = [DROPPED, OVERWRITTEN];
    let mut expected = after;
    for name in lost {
        let hash = before.hashes.get(name).with_context(|| format!("{name} was not hashed"))?;
        expected.insert(name.to_owned(), hash.clone());
    }
    proof::ensure_equal("documents", &expected, &proof::db_hash(database).await?)?;
    proof::ensure_equal("options and indexes", &before.metadata, &proof::metadata(database).await?)?;
    let others = expected.len() - lost.len();
    phases.end(format!(
        "dbHash of {DROPPED} and {OVERWRITTEN} as before, of {others} others as after; options and indexes equal"
    ));
    Ok(())
}

/// Waits until the second of `time` is over, by the clock that the server has too: then no more writes are of it.
async fn wait_for_the_second_after(time: ClusterTime) {
    let next = UNIX_EPOCH + Duration::from_secs(u64::from(time.seconds) + 1);
    while let Ok(left) = next.duration_since(SystemTime::now()) {
        tokio::time::sleep(left + Duration::from_millis(1)).await;
    }
}

/// Calls the deployed function until the whole second of `time` can be restored; gives the function's name.
async fn capture(cloud: &Cloud, phases: &mut Phases, time: ClusterTime) -> Result<String> {
    let end = ClusterTime { ordinal: u32::MAX, ..time };
    let client = aws_sdk_lambda::Client::new(&cloud.sdk_config().await);
    let function = format!("{}-capture-log", cloud.stack());
    for _ in 0..CAPTURES_MAX {
        let call = client.invoke().function_name(&function).payload(Blob::new("{}"));
        let called = call.send().await.with_context(|| format!("call {function}"))?;
        if let Some(why) = called.function_error() {
            bail!("{function} failed: {why}");
        }
        let told = shell::json(cloud, phases, &["nightsafe", "windows", "-d", DATABASE, "--json"]).await?;
        if is_restorable(&told, end) {
            return Ok(function);
        }
    }
    bail!("{function} was called {CAPTURES_MAX} times, and {end} is still not restorable")
}

/// Whether one of the windows holds `time`.
fn is_restorable(told: &Value, time: ClusterTime) -> bool {
    let instant = |value: &Value| value.as_str().and_then(|text| text.parse::<ClusterTime>().ok());
    let holds = |window: &Value| {
        let (from, until) = (instant(&window["from"]), instant(&window["until"]));
        from.is_some_and(|from| from <= time) && until.is_some_and(|until| time <= until)
    };
    told["windows"].as_array().is_some_and(|windows| windows.iter().any(holds))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_second_is_restorable_once_a_window_holds_all_of_it() {
        let check = |windows: Value, expected: bool| {
            let time = ClusterTime { seconds: 100, ordinal: u32::MAX };
            assert_eq!(is_restorable(&json!({ "windows": windows }), time), expected, "{windows}");
        };
        check(json!([]), false);
        check(json!([{ "from": "90,1", "until": "100,7" }]), false);
        check(json!([{ "from": "90,1", "until": "95,1" }, { "from": "96,1", "until": "101,0" }]), true);
        check(json!([{ "from": "101,1", "until": "110,1" }]), false);
        check(json!([{ "from": "90,1", "until": null }]), false);
    }
}
