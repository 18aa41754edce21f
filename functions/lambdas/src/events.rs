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
    serde_json::from_value(event).map_err(|why| {
        Error::new(ErrorKind::Invalid, "read the event: it is not one of this step's").because(why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_event_is_read() {
        let sample = |step: &str| {
            let path = format!("{}/../../events/{step}.json", env!("CARGO_MANIFEST_DIR"));
            serde_json::from_slice::<Value>(
                &std::fs::read(&path).unwrap_or_else(|why| panic!("{path}: {why}")),
            )
            .unwrap()
        };
        for step in [
            "trigger-backup",
            "seal-backup",
            "close",
            "plan-restore",
            "build-indexes",
            "finish-restore",
            "abandon-restore",
        ] {
            parse::<OperationEvent>(sample(step)).unwrap_or_else(|why| panic!("{step}: {why}"));
        }
        for step in ["dump-chunk", "verify-checksums", "restore-chunk", "validate-chunk"] {
            parse::<ItemEvent>(sample(step)).unwrap_or_else(|why| panic!("{step}: {why}"));
        }
        parse::<CaughtEvent>(sample("raise-alert")).unwrap();
        let ended = crate::raise_alert::from_event_bridge(sample("raise-alert-by-rule")).unwrap().unwrap();
        assert_eq!((ended.kind, ended.caught.error.as_str()), (OperationKind::Restore, "TIMED_OUT"));
    }

    #[test]
    fn hostile_events_are_refused() {
        use serde_json::json;
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
    }
}
