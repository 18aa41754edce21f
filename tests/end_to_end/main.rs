//! The real chain: a real mongod, the real template and state machines on a local AWS, the real binaries.
//!
//! One cloud serves most tests, one after another, because a source takes one backup at a time. What needs a cloud of its
//! own goes on beside them, because it waits most of its time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
#![allow(clippy::print_stderr, reason = "a test runner's output")]
#![allow(missing_docs, reason = "the names of tests say what they show")]

mod aws_fault_cases;
mod aws_faults;
mod backups;
mod bombs;
mod breakage;
mod busy_database;
mod bytes;
mod chain;
mod corpus;
mod exactness;
mod failures;
mod fixture;
mod following;
mod hostile_events;
mod inventory;
mod microburst;
mod mongo_commands;
mod mongo_faults;
mod nightly;
mod numbers;
mod old_server;
mod oracle;
mod order;
mod own_cloud;
mod pipeline;
mod ports;
mod privileges;
mod process;
mod refusals;
mod regions;
mod relay;
mod replica_set;
mod restores;
mod rollover;
mod sampling;
mod survival;
mod timeline;
mod wrong_input;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use fixture::Fixture;
use libtest_mimic::{Arguments, Trial};

type Test = (&'static str, fn(&Fixture));

/// They have a cloud of their own.
const BESIDE: [Test; 2] = [
    ("nightly::the_chain_runs_by_itself", nightly::the_chain_runs_by_itself),
    ("regions::three_regions_keep_what_they_promise", regions::three_regions_keep_what_they_promise),
];

/// They share one.
const TESTS: [Test; 60] = [
    ("nightly::a_doubled_trigger_runs_once", nightly::a_doubled_trigger_runs_once),
    ("ports::the_bucket_keeps_its_contract", ports::the_bucket_keeps_its_contract),
    ("ports::the_key_service_keeps_its_contract", ports::the_key_service_keeps_its_contract),
    ("ports::the_catalog_keeps_its_contract", ports::the_catalog_keeps_its_contract),
    ("ports::the_timeline_keeps_its_contract", ports::the_timeline_keeps_its_contract),
    ("order::ids_sort_as_the_server_sorts_them", order::ids_sort_as_the_server_sorts_them),
    (
        "following::changes_come_in_order_and_go_on_where_they_were",
        following::changes_come_in_order_and_go_on_where_they_were,
    ),
    (
        "following::an_instant_to_come_and_a_lost_one_are_told",
        following::an_instant_to_come_and_a_lost_one_are_told,
    ),
    (
        "oracle::every_restored_instant_is_a_snapshot_read_at_it",
        oracle::every_restored_instant_is_a_snapshot_read_at_it,
    ),
    (
        "rollover::an_oplog_that_rolls_over_closes_the_window",
        rollover::an_oplog_that_rolls_over_closes_the_window,
    ),
    (
        "rollover::a_collection_that_cannot_be_followed_closes_the_window",
        rollover::a_collection_that_cannot_be_followed_closes_the_window,
    ),
    ("timeline::any_second_comes_back_on_the_real_chain", timeline::any_second_comes_back_on_the_real_chain),
    ("ports::ranges_cover_every_id_of_every_type_once", ports::ranges_cover_every_id_of_every_type_once),
    (
        "ports::chunks_are_even_however_ids_and_sizes_are_spread",
        ports::chunks_are_even_however_ids_and_sizes_are_spread,
    ),
    ("ports::a_read_at_an_instant_is_exact_or_refused", ports::a_read_at_an_instant_is_exact_or_refused),
    ("ports::a_wrong_connection_string_is_a_clear_error", ports::a_wrong_connection_string_is_a_clear_error),
    ("backups::two_at_once_and_force", backups::two_at_once_and_force),
    ("backups::wrong_names_are_clear_errors", backups::wrong_names_are_clear_errors),
    ("restores::a_dropped_database_comes_back_whole", restores::a_dropped_database_comes_back_whole),
    (
        "restores::one_collection_comes_back_and_the_rest_is_left",
        restores::one_collection_comes_back_and_the_rest_is_left,
    ),
    ("restores::replacing_needs_the_operators_word", restores::replacing_needs_the_operators_word),
    ("corpus::everything_a_server_takes_survives", corpus::everything_a_server_takes_survives),
    ("corpus::two_thousand_tiny_collections_survive", corpus::two_thousand_tiny_collections_survive),
    (
        "exactness::every_chunk_is_a_snapshot_read_at_its_t",
        exactness::every_chunk_is_a_snapshot_read_at_its_t,
    ),
    (
        "exactness::collections_that_change_meanwhile_are_exact_or_labelled",
        exactness::collections_that_change_meanwhile_are_exact_or_labelled,
    ),
    ("bytes::a_chunk_is_read_without_any_of_our_code", bytes::a_chunk_is_read_without_any_of_our_code),
    (
        "bytes::the_oracle_and_we_open_what_the_other_sealed",
        bytes::the_oracle_and_we_open_what_the_other_sealed,
    ),
    ("failures::every_map_of_a_backup_fails_well", failures::every_map_of_a_backup_fails_well),
    ("failures::every_map_of_a_restore_fails_well", failures::every_map_of_a_restore_fails_well),
    ("failures::a_stopped_execution_is_told_and_ended", failures::a_stopped_execution_is_told_and_ended),
    (
        "survival::killed_anywhere_it_is_one_good_backup_and_restore",
        survival::killed_anywhere_it_is_one_good_backup_and_restore,
    ),
    (
        "survival::cut_off_and_slow_it_is_one_good_backup_and_restore",
        survival::cut_off_and_slow_it_is_one_good_backup_and_restore,
    ),
    (
        "mongo_faults::no_election_makes_a_false_backup_or_restore",
        mongo_faults::no_election_makes_a_false_backup_or_restore,
    ),
    (
        "mongo_faults::no_killed_node_makes_a_false_backup_or_restore",
        mongo_faults::no_killed_node_makes_a_false_backup_or_restore,
    ),
    (
        "mongo_faults::a_network_that_fails_in_mid_cursor_is_told_and_survived",
        mongo_faults::a_network_that_fails_in_mid_cursor_is_told_and_survived,
    ),
    (
        "mongo_faults::snapshots_that_grow_too_old_make_a_mosaic_of_whole_chunks",
        mongo_faults::snapshots_that_grow_too_old_make_a_mosaic_of_whole_chunks,
    ),
    ("mongo_faults::slow_reads_are_waited_for", mongo_faults::slow_reads_are_waited_for),
    (
        "mongo_faults::no_connection_left_is_told_and_survived",
        mongo_faults::no_connection_left_is_told_and_survived,
    ),
    ("mongo_commands::every_command_may_fail", mongo_commands::every_command_may_fail),
    (
        "mongo_commands::what_no_majority_has_is_done_again",
        mongo_commands::what_no_majority_has_is_done_again,
    ),
    ("mongo_commands::what_keeps_failing_ends_clearly", mongo_commands::what_keeps_failing_ends_clearly),
    ("wrong_input::names_of_nothing_are_refused", wrong_input::names_of_nothing_are_refused),
    ("wrong_input::wrong_connection_strings_are_refused", wrong_input::wrong_connection_strings_are_refused),
    ("wrong_input::resources_that_are_gone_are_told", wrong_input::resources_that_are_gone_are_told),
    ("wrong_input::servers_that_will_not_do_are_refused", wrong_input::servers_that_will_not_do_are_refused),
    (
        "privileges::each_privilege_of_the_backup_user_is_needed",
        privileges::each_privilege_of_the_backup_user_is_needed,
    ),
    (
        "privileges::each_privilege_of_the_restore_user_is_needed",
        privileges::each_privilege_of_the_restore_user_is_needed,
    ),
    ("privileges::a_refusal_quotes_no_document", privileges::a_refusal_quotes_no_document),
    ("hostile_events::hostile_events_are_refused", hostile_events::hostile_events_are_refused),
    (
        "hostile_events::events_of_other_operations_are_refused",
        hostile_events::events_of_other_operations_are_refused,
    ),
    (
        "hostile_events::executions_with_hostile_input_fail",
        hostile_events::executions_with_hostile_input_fail,
    ),
    ("bombs::bombs_behind_a_valid_seal_are_refused", bombs::bombs_behind_a_valid_seal_are_refused),
    ("aws_faults::the_machines_repeat_what_is_worth_it", aws_faults::the_machines_repeat_what_is_worth_it),
    (
        "aws_faults::a_conditional_write_whose_answer_is_lost_counts_once",
        aws_faults::a_conditional_write_whose_answer_is_lost_counts_once,
    ),
    (
        "aws_faults::a_fault_that_comes_twice_is_ridden_out",
        aws_faults::a_fault_that_comes_twice_is_ridden_out,
    ),
    (
        "aws_faults::a_write_whose_answer_is_lost_changes_nothing_more",
        aws_faults::a_write_whose_answer_is_lost_changes_nothing_more,
    ),
    (
        "aws_faults::a_cut_or_slow_connection_is_ridden_out",
        aws_faults::a_cut_or_slow_connection_is_ridden_out,
    ),
    ("aws_faults::a_damaged_body_is_read_again", aws_faults::a_damaged_body_is_read_again),
    ("aws_faults::an_upload_in_parts_survives_faults", aws_faults::an_upload_in_parts_survives_faults),
    ("aws_faults::a_fault_that_stays_is_a_clear_failure", aws_faults::a_fault_that_stays_is_a_clear_failure),
];

/// Tests of which one runs at a time.
type Lane<'a> = (&'a [Test], Arc<Mutex<()>>);

fn main() -> ExitCode {
    let lanes: [Lane<'_>; 2] = [(&BESIDE, Arc::default()), (&TESTS, Arc::default())];
    let mut arguments = Arguments::from_args();
    // One for each lane, and one that may wait for a lane meanwhile.
    arguments.test_threads = Some(lanes.len() + 1);
    let is_wanted = |name: &str| arguments.filter.as_ref().is_none_or(|filter| name.contains(filter));
    let names: Vec<&str> = lanes.iter().flat_map(|(tests, _)| tests.iter()).map(|(name, _)| *name).collect();
    if arguments.list || !names.iter().any(|name| is_wanted(name)) {
        let trials = names.into_iter().map(|name| Trial::test(name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let fixture = match Fixture::start() {
        Ok(fixture) => Arc::new(fixture),
        Err(why) => {
            eprintln!("error: the local cloud did not start: {why:#}");
            return ExitCode::FAILURE; // a missing server fails the run
        }
    };
    let trials = lanes.iter().flat_map(|(tests, lane)| tests.iter().map(|test| trial(*test, lane, &fixture)));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if let Err(why) = fixture.stop() {
        eprintln!("error: the local cloud did not stop: {why:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn trial((name, test): Test, lane: &Arc<Mutex<()>>, fixture: &Arc<Fixture>) -> Trial {
    let (lane, fixture) = (lane.clone(), fixture.clone());
    Trial::test(name, move || {
        let _turn = lane.lock().unwrap_or_else(PoisonError::into_inner);
        test(&fixture);
        Ok(())
    })
}
