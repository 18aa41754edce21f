//! The rules of the house, as a test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::flows::execution_seconds_max;
use backup_core::operation::OperationKind;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file that belongs to the project: what git tracks, and what it would.
fn files(ending: &str) -> Vec<(PathBuf, String)> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let wanted = listed.lines().filter(|path| path.ends_with(ending)).map(|path| root().join(path));
    let all: Vec<_> =
        wanted.filter_map(|path| fs::read_to_string(&path).ok().map(|text| (path, text))).collect();
    assert!(!all.is_empty(), "no files end in {ending}");
    all
}

fn check(ending: &str, rule: impl Fn(&Path, &str) -> Option<String>) {
    let broken: Vec<String> = files(ending)
        .iter()
        .filter_map(|(path, text)| rule(path, text).map(|what| format!("{}: {what}", path.display())))
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn a_file_has_one_subject() {
    const LINES_MAX: usize = 500;
    check(".rs", |_, text| {
        let lines = text.lines().count();
        (lines > LINES_MAX).then(|| format!("{lines} lines, more than {LINES_MAX}: split it"))
    });
}

#[test]
fn a_file_opens_with_its_purpose() {
    check(".rs", |_, text| {
        (!text.starts_with("//!")).then(|| "begin with a //! line that says why it exists".into())
    });
}

#[test]
fn nothing_is_left_for_later_without_an_issue() {
    // Spelled in pieces, so that this file keeps its own rule.
    let words =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];
    check(".rs", |_, text| {
        let bad =
            text.lines().find(|line| words.iter().any(|word| line.contains(word)) && !line.contains('#'));
        bad.map(|line| format!("left for later: {}", line.trim()))
    });
}

#[test]
fn no_module_is_a_drawer() {
    check(".rs", |path, _| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        ["util", "utils", "helper", "helpers", "common", "misc", "manager"]
            .contains(&name)
            .then(|| "name it by its subject".into())
    });
}

/// Steps that a schedule calls, not a state machine.
const SCHEDULED: [&str; 3] = ["replicate-timeline", "start-pipeline", "watch"];

/// One word for a step: its file, its state, its function's handler and its sample event.
#[test]
fn a_step_has_one_word() {
    let template = fs::read_to_string(root().join("infra/template.yaml")).unwrap();
    let main = fs::read_to_string(root().join("functions/lambdas/src/main.rs")).unwrap();
    let machines = ["protect", "synthesize", "replicate", "restore", "drill", "prune"]
        .map(|name| fs::read_to_string(root().join(format!("infra/statemachines/{name}.asl.json"))).unwrap());
    let steps: Vec<&str> =
        template.lines().filter_map(|line| line.trim().strip_prefix("Handler: ")).collect();
    assert_eq!(steps.len(), 29);
    for step in steps {
        let file = step.replace('-', "_");
        assert!(root().join(format!("functions/lambdas/src/{file}.rs")).exists(), "{step} has no file");
        let flows = root().join("shared/backup_core/src/flows");
        assert!(
            flows.join(format!("{file}.rs")).exists() || flows.join(format!("{file}/mod.rs")).exists(),
            "{step} has no flow"
        );
        assert!(root().join(format!("events/{step}.json")).exists(), "{step} has no sample event");
        assert!(main.contains(&format!("\"{step}\" => {file}::handle")), "{step} is not called");
        assert!(
            SCHEDULED.contains(&step)
                || machines.iter().any(|machine| machine.contains(&format!("\"{step}\": {{"))),
            "{step} is no state"
        );
    }
}

#[test]
fn the_core_knows_no_outside() {
    let manifest = fs::read_to_string(root().join("shared/backup_core/Cargo.toml")).unwrap();
    for outside in ["aws", "mongodb", "lambda"] {
        assert!(!manifest.contains(outside), "backup_core depends on {outside}");
    }
    check(".rs", |path, text| {
        let core = path.to_str().unwrap().contains("backup_core/src");
        let knows =
            ["SystemTime::now", "std::env::var", "Instant::now"].into_iter().find(|word| text.contains(word));
        knows.filter(|_| core).map(|word| format!("the core uses {word}"))
    });
}

/// The local AWS takes any definition, so this is where a wrong one is found.
#[test]
fn the_state_machines_are_sound() {
    for (path, text) in files(".asl.json") {
        let machine: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(machine["TimeoutSeconds"].as_u64().is_some(), "{}: no time limit", path.display());
        check_states(&path, &machine);
    }
}

/// A lease that ends before its machine does lets two work on one thing.
#[test]
fn a_lease_outlasts_its_machine() {
    for (machine, kind) in [
        ("protect", OperationKind::Backup),
        ("synthesize", OperationKind::Backup),
        ("restore", OperationKind::Restore),
        ("drill", OperationKind::Drill),
        ("prune", OperationKind::Prune),
    ] {
        let text =
            fs::read_to_string(root().join(format!("infra/statemachines/{machine}.asl.json"))).unwrap();
        let machine: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(machine["TimeoutSeconds"], execution_seconds_max(kind), "{kind}");
    }
}

fn check_states(path: &Path, machine: &serde_json::Value) {
    let states = machine["States"].as_object().unwrap();
    let told = |name: &str, what: &str| panic!("{}: state {name}: {what}", path.display());
    let exists =
        |target: &serde_json::Value| target.as_str().is_some_and(|target| states.contains_key(target));
    assert!(exists(&machine["StartAt"]), "{}: StartAt", path.display());
    for (name, state) in states {
        let kind = state["Type"].as_str().unwrap();
        let ends = state["End"] == true || matches!(kind, "Succeed" | "Fail" | "Choice");
        if !ends && !exists(&state["Next"]) {
            told(name, "it leads nowhere");
        }
        let choices = state["Choices"].as_array().into_iter().flatten().map(|choice| &choice["Next"]);
        let catches = state["Catch"].as_array().into_iter().flatten().map(|catch| &catch["Next"]);
        if !choices.chain(catches).chain(state.get("Default")).all(exists) {
            told(name, "it refers to a state that is not there");
        }
        if kind == "Task" && (state["TimeoutSeconds"].is_null() || state["Retry"].is_null()) {
            told(name, "a task needs a time limit and retries");
        }
        let top_level = machine.get("TimeoutSeconds").is_some();
        if top_level && matches!(kind, "Task" | "Map") && state["Catch"].is_null() && name != "raise-alert" {
            told(name, "a failure here would not be told");
        }
        if kind == "Map" {
            // A region that is down must not keep the others from their copies; `seal-replicas` sees what is missing.
            let tolerated = if name == "replicate-regions" { 100 } else { 0 };
            assert_eq!(state["ToleratedFailurePercentage"], tolerated, "{name}");
            check_states(path, &state["ItemProcessor"]);
        }
    }
}

/// Names of buckets can be guessed, and anybody may have made one first.
#[test]
fn no_role_reaches_the_bucket_of_another_account() {
    let template = fs::read_to_string(root().join("infra/template.yaml")).unwrap();
    let is_elsewhere = |statement: &&str| statement.contains("s3:::${AWS::StackName}-${AWS::AccountId}-*");
    let elsewhere: Vec<&str> = template.split("Effect: ").filter(is_elsewhere).collect();
    assert!(elsewhere.len() > 10, "{}", elsewhere.len());
    for statement in elsewhere {
        assert!(statement.contains("'aws:ResourceAccount': !Ref AWS::AccountId"), "{statement}");
    }
}

/// Locks are taken away by nobody: the permission stands in a denial only.
#[test]
fn no_role_gets_around_a_lock() {
    let template = fs::read_to_string(root().join("infra/template.yaml")).unwrap();
    let lines: Vec<&str> = template.lines().collect();
    let named: Vec<usize> =
        (0..lines.len()).filter(|it| lines[*it].contains("BypassGovernanceRetention")).collect();
    assert!(!named.is_empty());
    for line in named {
        let statement = lines[..line].iter().rev().find(|it| it.contains("Effect:")).unwrap();
        assert!(statement.contains("Deny"), "line {}", line + 1);
    }
}
