//! Failures in the middle, as an operator meets them: an alert, a free lease, everything as it was, and a plain retry
//! that succeeds.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use aws_sdk_lambda::types::Environment;

use crate::fixture::Fixture;

/// Points one function at a bucket that does not exist; gives its environment as it was.
fn break_function(fixture: &Fixture, step: &str) -> HashMap<String, String> {
    let client = aws_sdk_lambda::Client::new(&fixture.config);
    let name = format!("nightsafe-{step}");
    fixture.run(async {
        let found = client.get_function_configuration().function_name(&name).send().await.unwrap();
        let sound = found.environment().unwrap().variables().unwrap().clone();
        let mut broken = sound.clone();
        broken.insert("NIGHTSAFE_BUCKET".into(), "no-such-bucket".into());
        set(&client, &name, broken).await;
        sound
    })
}

fn mend_function(fixture: &Fixture, step: &str, sound: HashMap<String, String>) {
    let client = aws_sdk_lambda::Client::new(&fixture.config);
    fixture.run(set(&client, &format!("nightsafe-{step}"), sound));
}

async fn set(client: &aws_sdk_lambda::Client, name: &str, variables: HashMap<String, String>) {
    let environment = Environment::builder().set_variables(Some(variables)).build();
    client.update_function_configuration().function_name(name).environment(environment).send().await.unwrap();
}

pub(crate) fn every_map_of_a_backup_fails_well(fixture: &Fixture) {
    let database = fixture.database("unlucky");
    fixture.fill(&database, "large", 0, 2000);
    for step in ["dump-chunk", "verify-checksums"] {
        let (alerts, sound) = (fixture.alerts(), break_function(fixture, step));
        let (code, _, told) = fixture.output("./backup.sh", &["-d", "unlucky"]);
        mend_function(fixture, step, sound);
        assert_eq!(code, 5, "{step}: {told}");
        assert!(told.contains(step) && told.contains("NoSuchBucket"), "{step}: {told}");
        assert_eq!(fixture.alerts(), alerts + 1, "{step}: one alert");
        assert!(fixture.lease_holder().is_null(), "{step}: the lease is free");
        let (_, status, _) = fixture.output("nightsafe", &["status"]);
        assert!(status.contains("failed: backup"), "{status}");
        fixture.back_up("unlucky");
    }
}

pub(crate) fn every_map_of_a_restore_fails_well(fixture: &Fixture) {
    let database = fixture.database("unluckier");
    fixture.fill(&database, "large", 0, 2000);
    fixture.back_up("unluckier");
    fixture.fill(&database, "large", 2000, 2100);
    for step in ["restore-chunk", "validate-chunk", "finish-restore"] {
        let before = fixture.hashes(&database);
        let (alerts, sound) = (fixture.alerts(), break_function(fixture, step));
        let (code, _, told) = fixture.output("./restore.sh", &["-d", "unluckier", "--full", "--yes"]);
        mend_function(fixture, step, sound);
        assert_eq!(code, 5, "{step}: {told}");
        assert!(told.contains(step), "{step}: {told}");
        assert_eq!(fixture.alerts(), alerts + 2, "{step}: one alert that it began, one that it failed");
        assert_eq!(fixture.hashes(&database), before, "{step}: everything is as it was");
        let names = fixture.run(async { database.list_collection_names().await }).unwrap();
        assert!(!names.iter().any(|name| name.starts_with("nightsafe.staging.")), "{step}: {names:?}");
        fixture.json("./restore.sh", &["-d", "unluckier", "--full", "--yes"]);
        fixture.fill(&database, "large", 2000, 2100);
    }
}

/// Stopped from outside, an execution cannot catch anything: a rule ends its operation.
pub(crate) fn a_stopped_execution_is_told_and_ended(fixture: &Fixture) {
    let database = fixture.database("stopped");
    fixture.fill(&database, "large", 0, 30_000);
    let alerts = fixture.alerts();
    let mut command = fixture.shell("./backup.sh", &["-d", "stopped"]);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    let running = loop {
        let status = fixture.json("nightsafe", &["status"]);
        if let Some(id) = status["running"][0].as_str() {
            break id.to_owned();
        }
        assert!(began.elapsed() < Duration::from_mins(1), "the backup never ran");
    };
    let machine = fixture.stack("ProtectMachine").replace(":stateMachine:", ":execution:");
    fixture.run(async {
        let client = aws_sdk_sfn::Client::new(&fixture.config);
        client.stop_execution().execution_arn(format!("{machine}:backup-{running}")).send().await.unwrap();
    });
    let output = command.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(8), "{told}");
    assert!(told.contains("stopped by hand"), "{told}");
    assert_eq!(fixture.alerts(), alerts + 1, "one alert");
    assert!(fixture.lease_holder().is_null());
    fixture.back_up("stopped");
}
