//! The faults of AWS that steps meet in the tests, and what becomes of it, as data.

use backup_core::ErrorKind::{self, Corrupt, Denied, Internal, Throttled, Transient};

use self::Expected::{Completes, Fails, Repeats};
use crate::microburst::Rule;

/// What a step meets at its first item.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) step: &'static str,
    pub(crate) rules: Vec<Rule>,
    pub(crate) expected: Expected,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// The step does its work all the same.
    Completes,
    /// The step fails with this kind and these words in its message, and does its work when it is repeated: by the
    /// state machine, so the kind has to be one that is worth it.
    Repeats(ErrorKind, &'static str),
    /// The step fails with this kind and these words as long as the fault lasts, and does its work afterwards.
    Fails(ErrorKind, &'static str),
}

fn s3(operation: &str, path: &str) -> Rule {
    Rule::on("s3", operation).at(path)
}

fn dynamodb(operation: &str) -> Rule {
    Rule::on("dynamodb", operation)
}

fn kms(operation: &str) -> Rule {
    Rule::on("kms", operation)
}

fn secret() -> Rule {
    Rule::on("secretsmanager", "GetSecretValue")
}

/// The transaction that writes the audit record, not the one that writes the row.
fn audit() -> Rule {
    dynamodb("TransactWriteItems").about("once#")
}

type Stays = (Vec<Rule>, ErrorKind, &'static str);

fn stays(rule: Rule, kind: ErrorKind, words: &'static str) -> Stays {
    (vec![rule], kind, words)
}

fn fails(step: &'static str, all: Vec<Stays>) -> Vec<Case> {
    all.into_iter().map(|(rules, kind, words)| Case { step, rules, expected: Fails(kind, words) }).collect()
}

/// Faults that stay, in the order in which a step would meet them: what one of them lets happen before it fails does
/// not keep the next one away.
pub(crate) fn that_stay() -> Vec<Case> {
    let steps = [
        ("trigger-backup", in_trigger_backup()),
        ("dump-chunk", in_dump_chunk()),
        ("seal-backup", in_seal_backup()),
        ("verify-checksums", in_verify_checksums()),
        ("close", in_close()),
        ("plan-restore", in_plan_restore()),
        ("restore-chunk", in_restore_chunk()),
        ("build-indexes", in_build_indexes()),
        ("validate-chunk", in_validate_chunk()),
        ("finish-restore", in_finish_restore()),
    ];
    steps.into_iter().flat_map(|(step, all)| fails(step, all)).collect()
}

fn in_trigger_backup() -> Vec<Stays> {
    vec![
        stays(secret().throttled(), Throttled, "fetch the connection string"),
        stays(dynamodb("GetItem").throttled(), Throttled, "look up backup"),
        stays(dynamodb("GetItem").broken(), Transient, "look up backup"),
        stays(dynamodb("PutItem").throttled(), Throttled, "take the lease"),
        stays(kms("GenerateDataKey").throttled(), Throttled, "draw a data key"),
        stays(kms("GenerateDataKey").broken(), Transient, "draw a data key"),
        stays(s3("PutObject", "/plan.sealed").throttled(), Throttled, "/plan.sealed"),
        stays(s3("PutObject", "/plan.sealed").broken(), Transient, "/plan.sealed"),
        stays(s3("PutObject", "/plan.jsonl").throttled(), Throttled, "/plan.jsonl"),
        stays(dynamodb("TransactWriteItems").refused("ThrottlingException"), Throttled, "update"),
        stays(dynamodb("TransactWriteItems").lost(), Transient, "update"),
    ]
}

fn in_dump_chunk() -> Vec<Stays> {
    let (plan, chunk, result) = ("/plan.sealed", "/chunks/", "/results/");
    let conflict = s3("PutObject", result).refused_as("ConditionalRequestConflict", 409);
    vec![
        stays(s3("GetObject", plan).throttled(), Throttled, plan),
        stays(s3("GetObject", plan).damaged(), Transient, plan),
        stays(s3("GetObject", plan).damaged().unchecked(), Corrupt, plan),
        stays(s3("GetObject", plan).truncated(100).unchecked(), Corrupt, plan),
        stays(kms("Decrypt").throttled(), Throttled, "open a data key"),
        stays(kms("Decrypt").broken(), Transient, "open a data key"),
        // An answer to HeadObject has no body, so none that says why.
        stays(s3("HeadObject", result).throttled(), Transient, "/results/0.json"),
        stays(kms("GenerateDataKey").throttled(), Throttled, "draw a data key"),
        stays(s3("PutObject", chunk).throttled(), Throttled, "/chunks/0-"),
        stays(s3("PutObject", chunk).broken(), Transient, "/chunks/0-"),
        stays(s3("PutObject", chunk).lost(), Transient, "/chunks/0-"),
        (vec![dynamodb("GetItem").times(1), dynamodb("GetItem").throttled()], Throttled, "look at the lease"),
        stays(s3("PutObject", result).throttled(), Throttled, "/results/0.json"),
        stays(conflict, Transient, "another put of it is under way"),
        stays(s3("PutObject", result).lost(), Transient, "/results/0.json"),
    ]
}

fn in_seal_backup() -> Vec<Stays> {
    let (result, manifest) = ("/results/0.json", "/manifest.json.sealed");
    vec![
        stays(s3("GetObject", result).throttled(), Throttled, result),
        stays(s3("GetObject", result).damaged(), Transient, result),
        stays(s3("GetObject", result).damaged().unchecked(), Corrupt, result),
        stays(s3("GetObject", result).truncated(10).unchecked(), Corrupt, result),
        stays(s3("HeadObject", "/chunks/").throttled(), Transient, "/chunks/0-"),
        stays(kms("GenerateDataKey").refused("DisabledException"), Denied, "draw a data key"),
        stays(s3("PutObject", manifest).throttled(), Throttled, manifest),
        stays(s3("PutObject", manifest).broken(), Transient, manifest),
        stays(s3("PutObject", manifest).lost(), Transient, manifest),
        stays(dynamodb("TransactWriteItems").throttled(), Throttled, "update"),
        stays(dynamodb("TransactWriteItems").lost(), Transient, "update"),
    ]
}

fn in_verify_checksums() -> Vec<Stays> {
    let (manifest, chunk) = ("/manifest.json.sealed", "/chunks/0-");
    vec![
        stays(s3("GetObject", manifest).damaged(), Transient, manifest),
        stays(s3("GetObject", manifest).damaged().unchecked(), Corrupt, manifest),
        stays(s3("GetObject", manifest).truncated(100).unchecked(), Corrupt, manifest),
        stays(kms("Decrypt").throttled(), Throttled, "open a data key"),
        stays(s3("HeadObject", chunk).throttled(), Transient, chunk),
        stays(s3("GetObject", chunk).throttled(), Throttled, chunk),
        stays(s3("GetObject", chunk).broken_off(100), Transient, chunk),
        // What is read by range has no checksum in the first place: only the seal tells.
        stays(s3("GetObject", chunk).truncated(100), Corrupt, chunk),
        stays(s3("GetObject", chunk).damaged(), Corrupt, chunk),
        (vec![s3("GetObject", chunk).times(1), s3("GetObject", chunk).damaged()], Corrupt, chunk),
        stays(s3("PutObject", "/verified/").throttled(), Throttled, "/verified/0.json"),
    ]
}

fn in_close() -> Vec<Stays> {
    let (items, verified) = ("/plan.jsonl", "/verified/0.json");
    vec![
        stays(s3("GetObject", items).damaged(), Transient, items),
        stays(s3("GetObject", items).damaged().unchecked(), Corrupt, "read work items"),
        stays(s3("GetObject", items).truncated(0).unchecked(), Internal, "nothing shows that chunk 0"),
        stays(s3("GetObject", verified).damaged().unchecked(), Corrupt, verified),
        stays(s3("PutObject", "/report.json").throttled(), Throttled, "/report.json"),
        stays(dynamodb("TransactWriteItems").throttled(), Throttled, "update"),
        stays(dynamodb("TransactWriteItems").lost(), Transient, "update"),
        stays(audit().throttled(), Throttled, "write the audit record"),
        stays(audit().lost(), Transient, "write the audit record"),
        stays(dynamodb("UpdateItem").throttled(), Throttled, "release the lease"),
    ]
}

fn in_plan_restore() -> Vec<Stays> {
    let manifest = "/manifest.json.sealed";
    vec![
        stays(dynamodb("Query").throttled(), Throttled, "list in table"),
        stays(s3("GetObject", manifest).damaged().unchecked(), Corrupt, manifest),
        stays(dynamodb("PutItem").throttled(), Throttled, "take the lease"),
        stays(Rule::on("sns", "Publish").throttled(), Throttled, "publish an alert"),
        stays(Rule::on("sns", "Publish").broken(), Transient, "publish an alert"),
        stays(s3("PutObject", "/plan.sealed").throttled(), Throttled, "/plan.sealed"),
        stays(dynamodb("TransactWriteItems").throttled(), Throttled, "update"),
    ]
}

fn in_restore_chunk() -> Vec<Stays> {
    let (plan, chunk) = ("/plan.sealed", "/chunks/0-");
    vec![
        stays(s3("HeadObject", "/inserted/").throttled(), Transient, "/inserted/0.json"),
        stays(s3("GetObject", plan).damaged().unchecked(), Corrupt, plan),
        stays(kms("Decrypt").broken(), Transient, "open a data key"),
        stays(s3("GetObject", chunk).truncated(100), Corrupt, chunk),
        (vec![s3("GetObject", chunk).times(1), s3("GetObject", chunk).damaged()], Corrupt, chunk),
        stays(s3("PutObject", "/inserted/").throttled(), Throttled, "/inserted/0.json"),
    ]
}

fn in_build_indexes() -> Vec<Stays> {
    vec![
        stays(dynamodb("GetItem").throttled(), Throttled, "look up restore"),
        stays(kms("Decrypt").refused("DisabledException"), Denied, "open a data key"),
    ]
}

fn in_validate_chunk() -> Vec<Stays> {
    vec![stays(s3("PutObject", "/validated/").throttled(), Throttled, "/validated/0.json")]
}

fn in_finish_restore() -> Vec<Stays> {
    let (validated, write) = ("/validated/0.json", || dynamodb("TransactWriteItems"));
    vec![
        stays(s3("GetObject", validated).damaged().unchecked(), Corrupt, validated),
        stays(write().throttled(), Throttled, "update"),
        // After the swap: what is live is the restored state, and the row does not say so yet.
        (vec![write().times(1), write().throttled()], Throttled, "update"),
        stays(audit().lost(), Transient, "write the audit record"),
        stays(dynamodb("UpdateItem").throttled(), Throttled, "release the lease"),
    ]
}

/// Steps that do their work although each rule spoils so many requests. Rows of one step are one case.
fn complete(times: u64, rows: impl IntoIterator<Item = (&'static str, Rule)>) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (step, rule) in rows {
        let rule = rule.times(times);
        match cases.last_mut() {
            Some(case) if case.step == step => case.rules.push(rule),
            _ => cases.push(Case { step, rules: vec![rule], expected: Completes }),
        }
    }
    cases
}

/// Each call is refused twice, by throttling or by a fault of the service.
pub(crate) fn twice() -> Vec<Case> {
    let (manifest, plan, write) = ("/manifest.json.sealed", "/plan.sealed", "TransactWriteItems");
    let mut cases = complete(
        2,
        [
            ("trigger-backup", secret().throttled()),
            ("trigger-backup", dynamodb("GetItem").throttled()),
            ("trigger-backup", dynamodb("PutItem").throttled()),
            ("trigger-backup", kms("GenerateDataKey").throttled()),
            ("trigger-backup", s3("PutObject", plan).throttled()),
            ("trigger-backup", s3("PutObject", "/plan.jsonl").broken()),
            ("trigger-backup", dynamodb(write).throttled()),
            ("dump-chunk", dynamodb("GetItem").broken()),
            ("dump-chunk", s3("GetObject", plan).throttled()),
            ("dump-chunk", kms("Decrypt").broken()),
            ("dump-chunk", s3("HeadObject", "/results/").throttled()),
            ("dump-chunk", kms("GenerateDataKey").broken()),
            ("dump-chunk", s3("PutObject", "/chunks/").throttled()),
            ("dump-chunk", s3("PutObject", "/results/").throttled()),
            ("seal-backup", s3("GetObject", "/results/").throttled()),
            ("seal-backup", s3("HeadObject", "/chunks/").throttled()),
            ("seal-backup", s3("PutObject", manifest).throttled()),
            ("seal-backup", dynamodb(write).broken()),
            ("verify-checksums", s3("GetObject", manifest).broken()),
            ("verify-checksums", kms("Decrypt").throttled()),
            ("verify-checksums", s3("GetObject", "/chunks/").throttled()),
            ("verify-checksums", s3("PutObject", "/verified/").broken()),
            ("close", s3("GetObject", "/plan.jsonl").throttled()),
            ("close", s3("GetObject", "/verified/").throttled()),
            ("close", s3("PutObject", "/report.json").throttled()),
            ("close", audit().throttled()),
            ("close", dynamodb(write).throttled()),
            ("close", dynamodb("UpdateItem").throttled()),
        ],
    );
    cases.extend(twice_in_a_restore());
    cases
}

fn twice_in_a_restore() -> Vec<Case> {
    complete(
        2,
        [
            ("plan-restore", dynamodb("Query").throttled()),
            ("plan-restore", s3("GetObject", "/manifest.json.sealed").throttled()),
            ("plan-restore", dynamodb("PutItem").throttled()),
            ("plan-restore", Rule::on("sns", "Publish").throttled()),
            ("plan-restore", s3("PutObject", "/plan.sealed").throttled()),
            ("restore-chunk", s3("GetObject", "/plan.sealed").throttled()),
            ("restore-chunk", s3("GetObject", "/chunks/").throttled()),
            ("restore-chunk", s3("PutObject", "/inserted/").throttled()),
            ("build-indexes", dynamodb("GetItem").throttled()),
            ("build-indexes", kms("Decrypt").throttled()),
            ("validate-chunk", s3("PutObject", "/validated/").throttled()),
            ("finish-restore", s3("GetObject", "/validated/").throttled()),
            ("finish-restore", dynamodb("TransactWriteItems").throttled()),
            ("finish-restore", dynamodb("UpdateItem").throttled()),
        ],
    )
}

/// Every write is done and answered with a 500, once, so that it is sent again.
pub(crate) fn lost_once() -> Vec<Case> {
    let write = || dynamodb("TransactWriteItems");
    let rows = [
        ("trigger-backup", dynamodb("PutItem")), // finds that somebody has the lease: itself
        ("trigger-backup", kms("GenerateDataKey")),
        ("trigger-backup", s3("PutObject", "/plan.sealed")), // finds that somebody has stored a plan: itself
        ("trigger-backup", s3("PutObject", "/plan.jsonl")),
        ("trigger-backup", write()),
        ("dump-chunk", s3("PutObject", "/chunks/")),
        ("dump-chunk", s3("PutObject", "/results/")),
        ("seal-backup", s3("PutObject", "/manifest.json.sealed")),
        ("seal-backup", write()),
        ("verify-checksums", s3("PutObject", "/verified/")),
        ("close", s3("PutObject", "/report.json")),
        ("close", audit()),
        ("close", write()),
        ("close", dynamodb("UpdateItem")),
        ("plan-restore", dynamodb("PutItem")),
        ("plan-restore", Rule::on("sns", "Publish")),
        ("plan-restore", s3("PutObject", "/plan.sealed")),
        ("plan-restore", s3("PutObject", "/plan.jsonl")),
        ("plan-restore", write()),
        ("restore-chunk", s3("PutObject", "/inserted/")),
        ("validate-chunk", s3("PutObject", "/validated/")),
        ("finish-restore", audit()),
        ("finish-restore", write().about("restored")), // its last write to the row
        ("finish-restore", write()),                   // its first one, which claims the swap
        ("finish-restore", dynamodb("UpdateItem")),
    ];
    complete(1, rows.map(|(step, rule)| (step, rule.lost())))
}

/// Connections that are reset before, in the middle of and after the work, that trickle, and that stall.
pub(crate) fn cut_once() -> Vec<Case> {
    let (manifest, chunk) = ("/manifest.json.sealed", "/chunks/0-");
    let mut cases = complete(
        1,
        [
            ("trigger-backup", dynamodb("TransactWriteItems").reset_after()),
            ("dump-chunk", s3("PutObject", chunk).cut_after(4096)),
            ("dump-chunk", s3("PutObject", chunk).trickling(32)),
            ("dump-chunk", s3("PutObject", "/results/").reset_after()),
            ("seal-backup", s3("PutObject", manifest).reset_after()),
            ("plan-restore", dynamodb("Query").reset()),
            ("restore-chunk", s3("GetObject", chunk).reset()),
            ("build-indexes", kms("Decrypt").reset()),
            ("finish-restore", dynamodb("TransactWriteItems").reset_after()),
        ],
    );
    // A body that breaks off is beyond the SDK's retries: it has given out the answer's head by then.
    cases.extend([
        repeats("verify-checksums", s3("GetObject", chunk).broken_off(100), chunk),
        repeats("close", s3("GetObject", "/verified/").stalled(), "/verified/0.json"),
        repeats("validate-chunk", s3("GetObject", manifest).broken_off(100), manifest),
    ]);
    cases
}

fn repeats(step: &'static str, rule: Rule, words: &'static str) -> Case {
    Case { step, rules: vec![rule.times(1)], expected: Repeats(Transient, words) }
}

/// One body that is not what was stored, in each step that reads.
pub(crate) fn damaged_once() -> Vec<Case> {
    let (plan, manifest, chunk) = ("/plan.sealed", "/manifest.json.sealed", "/chunks/0-");
    let mut cases = complete(
        1,
        [
            ("seal-backup", s3("GetObject", "/results/").damaged().unchecked()),
            ("verify-checksums", s3("GetObject", chunk).truncated(100)),
            ("close", s3("GetObject", "/plan.jsonl").damaged().unchecked()),
            ("plan-restore", s3("GetObject", manifest).damaged().unchecked()),
            ("restore-chunk", s3("GetObject", chunk)), // the header comes as it is, what follows does not
            ("restore-chunk", s3("GetObject", chunk).damaged()),
            ("validate-chunk", s3("GetObject", plan).truncated(100).unchecked()),
            ("finish-restore", s3("GetObject", "/validated/").damaged().unchecked()),
        ],
    );
    cases.extend([
        repeats("dump-chunk", s3("GetObject", plan).damaged(), plan),
        repeats("build-indexes", s3("GetObject", manifest).damaged(), manifest),
    ]);
    cases
}

/// For a chunk of two parts.
pub(crate) fn in_parts() -> Vec<Case> {
    let (begin, send, complete_all) = ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload");
    let chunk = |operation| s3(operation, "/chunks/0-");
    // S3 may begin its answer with status 200 and fail only then.
    let late_failure = || chunk(complete_all).refused_as("InternalError", 200);
    let lasting = vec![
        stays(chunk(begin).throttled(), Throttled, "begin "),
        stays(chunk(send).throttled(), Throttled, "put part "),
        stays(chunk(complete_all).broken(), Transient, "complete "),
        stays(late_failure(), Transient, "complete "),
    ];
    let mut cases = fails("dump-chunk", lasting);
    let rules = [
        chunk(begin).lost(),
        chunk(send).cut_after(1024 * 1024), // first: the SDK waits longer at each try
        chunk(send).throttled(),
        chunk(send).throttled(),
        chunk(send).lost(),
        late_failure(),
        chunk(complete_all).lost(),
    ];
    cases.extend(complete(1, rules.map(|rule| ("dump-chunk", rule))));
    cases
}
