//! The contract of a store, run over every member of the enum.
//!
//! A case is an async function over a [`Fixture`]: a fresh database of its own. `KICKWHEEL_TEST_POSTGRES` names a server
//! where databases may be created; without it the Postgres member is skipped loudly, or fails under `REQUIRE_ALL=1`.
//! Everything here uses the public interface only. Where to look next: the cases, by subject.

#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod assets;
mod catalog;
mod crash;
mod cut;
mod fixture;
mod group_commit;
mod lanes;
mod leases;
mod opening;
mod outage;
mod partitions;
mod quarantine;
mod relay;
mod runs;
mod spool;
mod triggers;

use std::{panic::AssertUnwindSafe, pin::Pin};

use fixture::{Fixture, Kind};
use futures::{FutureExt as _, StreamExt as _, stream};

type Case = (&'static str, fn(Fixture) -> Pin<Box<dyn Future<Output = ()> + Send>>);

/// Makes a case of a function, under the function's name.
macro_rules! cases {
    ($($name:path),* $(,)?) => {
        &[$((stringify!($name), |fixture| Box::pin($name(fixture)))),*]
    };
}

const CASES: &[Case] = cases![
    group_commit::concurrent_appends_are_all_kept_in_order,
    group_commit::one_bad_unit_of_a_batch_is_refused_alone,
    group_commit::a_refused_unit_leaves_nothing_behind,
    group_commit::appends_sent_without_waiting_keep_their_order,
    group_commit::a_closed_store_is_unavailable_and_reopens_with_everything,
    leases::an_old_epoch_is_fenced_and_writes_nothing,
    leases::free_and_expired_shards_are_taken_and_held_ones_are_not,
    leases::exclusive_takes_all_and_renewal_tells_what_is_left,
    lanes::a_repeated_identity_is_a_duplicate_of_the_first,
    lanes::events_of_a_lane_are_decided_in_order,
    lanes::a_parked_lane_does_not_hold_up_others,
    lanes::a_quarantined_event_lets_its_lane_go_on,
    lanes::accept_and_decide_fit_in_one_unit,
    lanes::refs_keep_their_transitions_and_channels,
    lanes::forgotten_identities_may_come_again,
    lanes::long_attributes_fit,
    runs::a_run_is_created_once_per_event_and_generation,
    runs::a_wrong_sequence_number_is_stale,
    runs::an_input_is_kept_until_an_append_deals_with_it,
    runs::recovery_finds_what_is_open_and_nothing_else,
    runs::a_sealed_journal_reads_the_same,
    runs::snapshots_are_replaced_by_later_ones,
    runs::listings_filter_and_page,
    assets::a_moved_stage_is_a_conflict_that_names_everything,
    assets::a_task_registers_a_model_once,
    assets::equal_bytes_are_no_new_version_of_a_dataset,
    assets::the_first_cached_result_stays,
    assets::a_cached_result_is_replaced_only_if_it_is_the_expected_one,
    catalog::revisions_of_a_registry_have_no_gaps,
    catalog::named_things_are_put_replaced_and_removed,
    catalog::a_report_that_was_replaced_is_not_done,
    triggers::a_changed_trigger_stays_paused_and_as_old_as_it_is,
    triggers::a_state_moves_on_only_from_the_expected_version,
    triggers::a_state_goes_with_its_trigger,
    access::secrets_are_listed_without_their_values,
    access::a_secret_that_was_set_meanwhile_is_not_rekeyed,
    access::nothing_is_sealed_with_a_key_that_is_not_in_force,
    access::tokens_are_found_by_hash_until_they_end,
    access::a_token_is_made_once,
    spool::ingress_is_spooled_only_in_that_mode,
    spool::the_spool_keeps_its_order_and_each_key_once,
    spool::direct_waits_until_the_ingress_is_drained,
    partitions::known_partitions_stay_as_they_are,
    partitions::free_and_expired_partitions_are_taken_and_held_ones_are_not,
    partitions::replicas_that_take_at_once_share_nothing,
    partitions::an_offset_moves_with_what_was_read_or_neither_does,
    partitions::a_stopped_partition_is_nobodys_until_it_is_reset,
    relay::the_journal_of_a_shard_is_read_in_commit_order,
    relay::a_relay_cursor_moves_on_under_the_epoch,
    relay::sealing_waits_for_the_relay,
    quarantine::an_input_is_kept_once_with_its_bytes,
    quarantine::an_input_is_resolved_once,
    quarantine::a_requeued_event_is_last_in_its_lane,
    quarantine::an_event_accepted_in_the_same_unit_can_be_requeued,
    quarantine::a_dropped_event_is_gone_for_good,
    quarantine::a_range_of_events_is_read_oldest_first,
    crash::nothing_acknowledged_is_lost_when_the_process_is_killed,
];

/// Cases that run at the same time.
const AT_ONCE: usize = 6;

async fn run_all(kind: Kind) {
    let results = stream::iter(CASES).map(|(name, case)| {
        let kind = kind.clone();
        tokio::spawn(async move {
            let fixture = Fixture::new(&kind).await;
            let cleaner = fixture.clone();
            let passed = AssertUnwindSafe(case(fixture)).catch_unwind().await.is_ok();
            println!("{kind} {name}: {}", if passed { "ok" } else { "FAILED" });
            cleaner.remove().await;
            (!passed).then_some(*name)
        })
    });
    let results: Vec<_> = results.buffer_unordered(AT_ONCE).collect().await;
    let failed: Vec<_> = results.into_iter().filter_map(|result| result.expect("cases are caught")).collect();
    assert!(failed.is_empty(), "{kind}: {failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_the_contract() {
    run_all(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_the_contract() {
    if let Some(kind) = fixture::postgres() {
        run_all(kind).await;
    }
}
