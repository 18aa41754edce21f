//! Events that no state machine of ours sends: they are refused by name, quote nothing of themselves, leave nothing
//! behind, and executions that begin with them fail instead of hanging.

use std::path::Path;
use std::time::{Duration, Instant};

use aws_sdk_sfn::types::ExecutionStatus;
use backup_aws::SystemClock;
use backup_core::error::ErrorKind;
use backup_core::id::OperationId;
use backup_core::operation::OperationKind;
use backup_core::ports::{Catalog, Clock};
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::pipeline::Pipeline;
use crate::process::{Function, Invocation, Outcome};
use crate::refusals::print_row;

/// Stands in every hostile text, and in no answer.
const MARK: &str = "hostile-mark";
const MIB: usize = 1024 * 1024;
/// Deeper than JSON is read (128), and not so deep that our own writing of it ends.
const DEPTH: usize = 300;
const ENDS_WITHIN: Duration = Duration::from_mins(1);
const ROWS_MAX: u32 = 1000;

/// Every step of one operation, with the kind of operation and whether it has items.
const STEPS: [(&str, OperationKind, bool); 11] = [
    ("trigger-backup", OperationKind::Backup, false),
    ("dump-chunk", OperationKind::Backup, true),
    ("seal-backup", OperationKind::Backup, false),
    ("verify-checksums", OperationKind::Backup, true),
    ("close", OperationKind::Backup, false),
    ("plan-restore", OperationKind::Restore, false),
    ("restore-chunk", OperationKind::Restore, true),
    ("build-indexes", OperationKind::Restore, false),
    ("validate-chunk", OperationKind::Restore, true),
    ("finish-restore", OperationKind::Restore, false),
    ("abandon-restore", OperationKind::Restore, false),
];

/// One invocation of the function of a step, in a process that `bootstrap` starts.
pub(crate) fn invoke(fixture: &Fixture, bootstrap: &Path, step: &str, event: &Value) -> Outcome {
    fixture.run(async {
        let function = Function::find(&fixture.config, step).await;
        Invocation { bootstrap, function: &function, event }.run(None).await
    })
}

pub(crate) fn fresh_id() -> OperationId {
    OperationId::generate(SystemClock::without_deadline().now_millis()).unwrap()
}

/// What there is of everything that a step could write.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    objects: usize,
    rows: [usize; 2],
    records: usize,
    alerts: usize,
}

impl Written {
    fn look(fixture: &Fixture, pipeline: &Pipeline<'_>) -> Self {
        let rows = |kind| fixture.run(pipeline.catalog.operations(kind, ROWS_MAX)).unwrap().len();
        Self {
            objects: pipeline.versions("").len(),
            rows: [rows(OperationKind::Backup), rows(OperationKind::Restore)],
            records: fixture.run(pipeline.catalog.audit(ROWS_MAX)).unwrap().len(),
            alerts: fixture.alerts(),
        }
    }
}

pub(crate) fn hostile_events_are_refused(fixture: &Fixture) {
    let (pipeline, bootstrap) = (Pipeline::open(fixture), fixture.bootstrap());
    let before = Written::look(fixture, &pipeline);
    for (step, what, event) in of_operations().into_iter().chain(of_items()).chain(of_alerts()) {
        let outcome = invoke(fixture, &bootstrap, step, &event);
        is_refused(step, what, outcome, ErrorKind::Invalid, "read the event");
    }
    too_deep(fixture, &bootstrap);
    assert_eq!(Written::look(fixture, &pipeline), before, "something was written");
}

/// It fails with this kind, says so, and quotes nothing.
fn is_refused(step: &str, what: &str, outcome: Outcome, kind: ErrorKind, says: &str) {
    let name = format!("{step}: event {what}");
    let (error_type, message) = outcome.failure(&name);
    print_row(&name, i32::from(kind.exit_code()), &message, "");
    assert_eq!(error_type, kind.name(), "{name}: {message}");
    assert!(message.contains(says), "{name}: {message}");
    assert!(!message.contains(MARK) && message.len() < 300, "{name}: {message}");
}

/// A step, what is wrong with the event, and the event.
type Hostile = (&'static str, &'static str, Value);

fn of_operations() -> Vec<Hostile> {
    let id = fresh_id().to_string();
    let small = id.to_lowercase();
    let events = [
        ("null", json!(null)),
        ("a text", json!(MARK)),
        ("a number", json!(7)),
        ("an empty list", json!([])),
        ("nothing in it", json!({})),
        ("an id that is null", json!({ "operation": null })),
        ("an id that is a number", json!({ "operation": 7 })),
        ("an id that is a list", json!({ "operation": [id] })),
        ("an id that is an object", json!({ "operation": { "$oid": id } })),
        ("an id in small letters", json!({ "operation": small })),
        ("an id with a space", json!({ "operation": format!("{id} ") })),
        ("an id that leads elsewhere", json!({ "operation": format!("../../{MARK}") })),
        ("an id of 10 MB", json!({ "operation": MARK.repeat(10 * MIB / MARK.len()) })),
        ("a field in capitals", json!({ "Operation": id })),
        ("a field too many", json!({ "operation": id, "bucket": MARK })),
        ("6 MB too many", json!({ "operation": id, MARK: "x".repeat(6 * MIB) })),
    ];
    let others = STEPS.into_iter().filter(|(step, _, has_items)| !has_items && *step != "trigger-backup");
    let others = others.map(|(step, ..)| (step, "a field too many", json!({ "operation": id, MARK: MARK })));
    events.map(|(what, event)| ("trigger-backup", what, event)).into_iter().chain(others).collect()
}

fn of_items() -> Vec<Hostile> {
    let id = fresh_id();
    let items = [
        ("an item that is null", json!(null)),
        ("an item of texts", json!({ "first": "0", "count": "1" })),
        ("an item below 0", json!({ "first": -1, "count": 1 })),
        ("half an item", json!({ "first": 0, "count": 0.5 })),
        ("an item beyond 32 bits", json!({ "first": 4_294_967_296_u64, "count": 1 })),
        ("an item without a count", json!({ "first": 0 })),
        ("an item with more", json!({ "first": 0, "count": 1, MARK: MARK })),
    ];
    let event = |item: Value| json!({ "operation": id, "item": item });
    let mut all: Vec<Hostile> =
        items.map(|(what, item)| ("dump-chunk", what, event(item))).into_iter().collect();
    all.push(("restore-chunk", "no item", json!({ "operation": id })));
    all
}

fn of_alerts() -> Vec<Hostile> {
    let id = fresh_id();
    let caught = json!({ "Error": MARK, "Cause": MARK });
    let of_rule = json!({ "detail-type": MARK, "source": "aws.states", "detail": { "name": 7 } });
    let of_step = |kind: &str, caught: &Value| json!({ "kind": kind, "operation": id, "caught": caught });
    vec![
        ("raise-alert", "of another kind", of_step(MARK, &caught)),
        ("raise-alert", "that caught nothing", of_step("backup", &json!({}))),
        ("raise-alert", "that caught a text", of_step("backup", &json!(MARK))),
        ("raise-alert", "of no rule", json!({ "detail-type": 7 })),
        ("raise-alert", "of a rule on something else", of_rule),
    ]
}

/// The runtime gives up before our code is asked, so the name is its own; the machines catch every name.
fn too_deep(fixture: &Fixture, bootstrap: &Path) {
    let deep = (0..DEPTH).fold(json!(MARK), |inside, _| Value::Array(vec![inside]));
    let outcome = invoke(fixture, bootstrap, "trigger-backup", &json!({ "operation": deep }));
    let (error_type, message) = outcome.failure(&"an event that is too deep");
    print_row("trigger-backup: event 300 lists deep", 1, &error_type, "");
    assert!(message.contains("recursion limit") && !message.contains(MARK), "{message}");
}

/// Ids that lead nowhere, ids of the other kind, and events of what has ended.
pub(crate) fn events_of_other_operations_are_refused(fixture: &Fixture) {
    let database = fixture.database("evented");
    fixture.fill(&database, "there", 0, 10);
    let backup = fixture.back_up("evented")["id"].as_str().unwrap().to_owned();
    let restore = fixture.json("./restore.sh", &["-d", "evented", "--full", "--yes"])["id"].clone();
    let (pipeline, bootstrap) = (Pipeline::open(fixture), fixture.bootstrap());
    let before = (Written::look(fixture, &pipeline), fixture.hashes(&database));
    for (step, kind, has_items) in STEPS {
        let another = if kind == OperationKind::Backup { restore.clone() } else { json!(backup) };
        let event = with_item(json!({ "operation": another }), has_items);
        let outcome = invoke(fixture, &bootstrap, step, &event);
        is_refused(step, "of another kind", outcome, ErrorKind::NotFound, "the catalog has none");
    }
    for step in ["trigger-backup", "plan-restore"] {
        let outcome = invoke(fixture, &bootstrap, step, &json!({ "operation": fresh_id() }));
        is_refused(step, "of nothing", outcome, ErrorKind::NotFound, "the catalog has none");
    }
    let beyond = json!({ "operation": backup, "item": { "first": 0, "count": u32::MAX } });
    let outcome = invoke(fixture, &bootstrap, "dump-chunk", &beyond);
    is_refused("dump-chunk", "of more chunks than there are", outcome, ErrorKind::Invalid, "no such chunk");
    let caught = json!({ "Error": "Nightsafe.Denied", "Cause": "" });
    let false_alarm = json!({ "kind": "backup", "operation": backup, "caught": caught });
    invoke(fixture, &bootstrap, "raise-alert", &false_alarm).answer(&"a false alarm");
    let after = (Written::look(fixture, &pipeline), fixture.hashes(&database));
    assert_eq!(after, before, "what has ended is as it was");
}

fn with_item(mut event: Value, has_items: bool) -> Value {
    if has_items {
        event["item"] = json!({ "first": 0, "count": 1 });
    }
    event
}

/// Somebody who may start executions gives one an input of his own.
pub(crate) fn executions_with_hostile_input_fail(fixture: &Fixture) {
    let pipeline = Pipeline::open(fixture);
    let before = Written::look(fixture, &pipeline);
    let machines = ["ProtectMachine", "RestoreMachine"].map(|output| fixture.stack(output));
    let inputs = [
        ("nothing in it", json!({})),
        ("a list", json!([MARK])),
        ("null", json!(null)),
        ("an id that is an object", json!({ "operation": { "operation": MARK } })),
        ("an id that leads elsewhere", json!({ "operation": format!("../../{MARK}") })),
        ("an unknown operation", json!({ "operation": fresh_id() })),
        ("200 KB too many", json!({ "operation": MARK, "more": "x".repeat(200 * 1024) })),
    ];
    let client = aws_sdk_sfn::Client::new(&fixture.config);
    let mut started = Vec::new();
    for (number, (what, input)) in inputs.iter().enumerate() {
        for (machine, kind) in machines.iter().zip(["backup", "restore"]) {
            // Named like those of operations, so that the rule on ended executions looks at the input, too.
            let name = format!("{kind}-hostile-{number}");
            let start = client.start_execution().state_machine_arn(machine).name(name);
            let execution = fixture.run(start.input(input.to_string()).send()).unwrap().execution_arn;
            started.push((format!("{kind}: input with {what}"), execution));
        }
    }
    for (name, execution) in started {
        let (status, error) = fixture.run(ended(&client, &execution));
        print_row(&name, 1, &error, "");
        assert_eq!(status, ExecutionStatus::Failed, "{name}: {error}");
    }
    assert_eq!(Written::look(fixture, &pipeline), before, "something was written");
}

/// How an execution ended, and with what error.
async fn ended(client: &aws_sdk_sfn::Client, execution: &str) -> (ExecutionStatus, String) {
    let began = Instant::now();
    loop {
        let found = client.describe_execution().execution_arn(execution).send().await.unwrap();
        if found.status != ExecutionStatus::Running {
            return (found.status, found.error.unwrap_or_default());
        }
        assert!(began.elapsed() < ENDS_WITHIN, "{execution} hangs");
        tokio::time::sleep(Duration::from_millis(50)).await; // the service tells nobody by itself
    }
}
