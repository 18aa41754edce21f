//! The events of steps. They carry ids and enums only: a hostile name cannot come in by an event, and unknown fields
//! are refused.

use backup_core::format::WorkItem;
use backup_core::id::OperationId;
use backup_core::operation::OperationKind;
use backup_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// For steps that work on a whole backup or restore.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperationEvent {
    pub(crate) operation: OperationId,
}

/// For steps that work on one item of a Map.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ItemEvent {
    pub(crate) operation: OperationId,
    pub(crate) item: WorkItem,
}

/// For steps that a schedule calls, which tells them nothing, or a backup that waits for them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduleEvent {
    #[serde(default)]
    pub(crate) operation: Option<OperationId>,
}

/// For `raise-alert`, from a state machine that caught an error.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaughtEvent {
    pub(crate) kind: OperationKind,
    pub(crate) operation: OperationId,
    pub(crate) caught: Caught,
}

/// What a `Catch` gives.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Caught {
    pub(crate) error: String,
    #[serde(default)]
    pub(crate) cause: String,
}

pub(crate) fn parse<T: DeserializeOwned>(event: Value) -> Result<T> {
    // Serde's own words quote the event, and an event is not to be told.
    serde_json::from_value(event)
        .map_err(|_| Error::new(ErrorKind::Invalid, "read the event: it is not one of this step's"))
}

#[cfg(test)]
mod tests {
    use backup_testkit::hostile::{self, Draw, assert_discreet};
    use serde_json::json;

    use super::*;
    use crate::raise_alert::from_event_bridge;
    use crate::start_pipeline::SlotEvent;

    fn sample(step: &str) -> Value {
        let path = format!("{}/../../events/{step}.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read(&path).unwrap_or_else(|why| panic!("{path}: {why}"));
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn every_sample_event_is_read() {
        for step in [
            "trigger-backup",
            "seal-backup",
            "plan-proof",
            "close",
            "plan-synthesis",
            "seal-synthesis",
            "thaw",
            "plan-restore",
            "build-indexes",
            "finish-restore",
            "abandon-restore",
            "sample-restore",
            "seal-replicas",
            "prune-retention",
            "plan-drill",
            "finish-drill",
        ] {
            parse::<OperationEvent>(sample(step)).unwrap_or_else(|why| panic!("{step}: {why}"));
        }
        for step in [
            "dump-chunk",
            "verify-checksums",
            "prove-chunk",
            "fold-chunk",
            "restore-chunk",
            "validate-chunk",
            "replicate-regions",
            "rehearse-chunk",
        ] {
            parse::<ItemEvent>(sample(step)).unwrap_or_else(|why| panic!("{step}: {why}"));
        }
        for step in ["capture-log", "replicate-timeline", "watch"] {
            parse::<ScheduleEvent>(sample(step)).unwrap_or_else(|why| panic!("{step}: {why}"));
        }
        parse::<SlotEvent>(sample("start-pipeline")).unwrap();
        parse::<CaughtEvent>(sample("raise-alert")).unwrap();
        let ended = from_event_bridge(sample("raise-alert-by-rule")).unwrap().unwrap();
        assert_eq!((ended.kind, ended.caught.error.as_str()), (OperationKind::Restore, "TIMED_OUT"));
    }

    #[test]
    fn hostile_events_are_refused() {
        let id = "01JD9Z5Q4M0000000000000000";
        assert!(parse::<OperationEvent>(json!({ "operation": id })).is_ok());
        for event in [
            json!(null),
            json!([]),
            json!({}),
            json!({ "operation": "../../etc" }),
            json!({ "operation": id.to_lowercase() }),
            json!({ "operation": 1 }),
            json!({ "operation": id, "bucket": "mine" }),
        ] {
            assert_eq!(
                parse::<OperationEvent>(event.clone()).unwrap_err().kind(),
                ErrorKind::Invalid,
                "{event}"
            );
        }
        for item in
            [json!({ "first": -1, "count": 1 }), json!({ "first": 0 }), json!({ "first": 0, "count": 1.5 })]
        {
            assert!(parse::<ItemEvent>(json!({ "operation": id, "item": item })).is_err(), "{item}");
        }
        for event in
            [json!(null), json!({ "operation": "../x" }), json!({ "when": 1 }), sample("raise-alert-by-rule")]
        {
            assert_eq!(
                parse::<ScheduleEvent>(event.clone()).unwrap_err().kind(),
                ErrorKind::Invalid,
                "{event}"
            );
        }
    }

    /// Fuzzed like the decoders of `backup_core`. The runtime has parsed the JSON before.
    #[test]
    fn any_event_is_read_whole_or_refused_discreetly() {
        let steps = ["close", "dump-chunk", "capture-log", "raise-alert", "raise-alert-by-rule"];
        let samples = steps.map(sample);
        bolero::check!().for_each(|input: &[u8]| {
            let mut draw = Draw::new(input);
            let valid = &samples[usize::from(draw.byte()) % samples.len()];
            let text = hostile::json(valid, &mut draw);
            let Ok(event) = serde_json::from_slice::<Value>(&text) else { return };
            if let Some(OperationEvent { operation }) = read(&event, parse) {
                assert!(is_nothing_but(&event, &json!({ "operation": operation })));
            }
            if let Some(ItemEvent { operation, item }) = read(&event, parse) {
                assert!(is_nothing_but(&event, &json!({ "operation": operation, "item": item })));
            }
            if let Some(ScheduleEvent { operation }) = read(&event, parse) {
                let told = operation.map_or(json!({}), |id| json!({ "operation": id }));
                let is_none = event == json!({ "operation": null });
                assert!(is_none || is_nothing_but(&event, &told));
            }
            if let Some(CaughtEvent { kind, operation, .. }) = read(&event, parse) {
                let caught = &event["caught"];
                let told = json!({ "kind": kind, "operation": operation, "caught": caught });
                assert!(is_nothing_but(&event, &told));
            }
            read(&event, from_event_bridge);
        });
    }

    fn read<T>(event: &Value, parse: impl Fn(Value) -> Result<T>) -> Option<T> {
        let outcome = parse(event.clone());
        if let Err(why) = &outcome {
            assert_eq!(why.kind(), ErrorKind::Invalid);
            assert_discreet(why);
        }
        outcome.ok()
    }

    /// Serde also takes the fields of a struct as a list, without their names.
    fn is_nothing_but(event: &Value, fields: &Value) -> bool {
        event == fields || event.is_array() || event.get("item").is_some_and(Value::is_array)
    }
}
