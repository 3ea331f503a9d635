//! The turns of a compacted topic, checked: the very `step`, `look` and `title` that the coordinator runs, with two
//! instances, Kafka and its log cleaner, the bucket, and everything that can go wrong between them.
//!
//! What is in the model: records that supersede others and tombstones, a cleaner that runs at any moment and collects
//! tombstones after `delete.retention.ms`; the beginning of a log that is deleted, read or not; scans that read record by record; objects, TERMs and DELETEs that arrive late,
//! in any order, or long after their process has died (a DELETE for as long as a signed request lives); answers that
//! never come; messages that are lost, repeated and reordered; crashes at any step; a process that is taken for dead and
//! goes on; turns by hand and by silence.
//!
//! What is judged after every step (`World::judge`) is what a restore would give, key by key, against the keys that were
//! live where the snapshot ends: never offsets.
//!
//! All of it at once has too many states to be searched. So there are
//! - searches (stateright, every order of events up to a depth) of smaller models with one class of faults each, from
//!   the beginning or from every point of a run through two turns in which nothing goes wrong;
//! - the same searches with one rule taken out, which must find what is lost without it;
//! - random walks through the model that has everything, each followed by a stretch in which nothing more goes wrong:
//!   wherever the walk has led, turns are taken again.
//!
//! Left out: what a lane does when an acknowledgement is lost (`model::chain` is tested for that), pins, several looks
//! at the bucket that overlap with changes (a look is one moment here; what it leads to is late instead).

mod bucket;
mod lanes;
mod log;
mod walk;
mod world;

use std::time::Instant;

use kafka_backup::model::compacted::{Initial, Rule, Rules};
use log::Record;
use rstest::rstest;
use stateright::{Checker, HasDiscoveries, Model, Property};
use world::{Action, Config, Request, World};

const SNAPSHOT: &str = "a complete snapshot is there once there was one";
const KEYS: &str = "a restore gives the live keys";
const NEVER_BACK: &str = "what could be restored can still be";
const C1: &str = "nothing is deleted without C1";

/// A search from these worlds on.
struct Turns {
    config: Config,
    from: Vec<World>,
}

impl Model for Turns {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        self.from.clone()
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend(world.actions(&self.config));
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.act(&self.config, action);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SNAPSHOT, |_, world: &World| !world.found.nothing_left),
            Property::always(KEYS, |_, world: &World| !world.found.wrong_keys),
            Property::always(NEVER_BACK, |_, world: &World| !world.found.went_back),
            Property::always(C1, |_, world: &World| !world.found.against_c1),
        ]
    }
}

/// Searches everything that can happen within `depth` steps from any of the worlds. Returns the properties that do not
/// hold, and says how it comes to that.
fn search(config: &Config, from: Vec<World>, depth: usize) -> Vec<&'static str> {
    let started = Instant::now();
    let begins = from.len();
    let from = from.into_iter().map(|world| world.with_faults_of(config)).collect();
    let builder = Turns { config: config.clone(), from }.checker().threads(2);
    // The world that is begun with counts as a step there.
    let checker = builder.target_max_depth(depth + 1).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!("{} states within {depth} steps of {begins}, {:?}", checker.unique_state_count(), started.elapsed());
    let mut found = Vec::new();
    for (property, path) in checker.discoveries() {
        println!("{property}: not after");
        path.into_actions().iter().for_each(|action| println!("    {action:?}"));
        found.push(property);
    }
    found
}

fn put(partition: i32, key: u8, value: u8) -> (i32, Record) {
    (partition, Record { key, value: Some(value) })
}

fn remove(partition: i32, key: u8) -> (i32, Record) {
    (partition, Record { key, value: None })
}

/// One partition whose cleaner runs whenever it likes; scans read record by record. Nothing else goes wrong.
fn cleaner() -> Config {
    Config {
        script: vec![put(0, 1, 1), put(0, 2, 1), remove(0, 1), put(0, 2, 2)],
        retention: Some(4),
        ticks: 5,
        ..Config::default()
    }
}

/// The beginning of the log is deleted at any moment; a process dies.
fn gaps() -> Config {
    Config {
        script: vec![put(0, 1, 1), put(0, 2, 1), remove(0, 1), put(0, 2, 2)],
        trims: 2,
        crashes: 1,
        ..Config::default()
    }
}

/// Two partitions; TERMs and DELETEs take their time, one gets no answer, a process dies.
fn late_requests() -> Config {
    Config {
        partitions: 2,
        script: vec![put(0, 1, 1), put(1, 2, 1), put(0, 2, 1)],
        swaps: 2,
        ticks: 1,
        crashes: 1,
        timeouts: 1,
        slow_records: true,
        ..Config::default()
    }
}

/// One partition; objects, too, take their time, and a process that is taken for dead goes on.
fn zombie() -> Config {
    Config {
        script: vec![put(0, 1, 1), put(0, 2, 1)],
        swaps: 2,
        ticks: 1,
        zombies: 1,
        slow_puts: true,
        slow_records: true,
        ..Config::default()
    }
}

/// Messages are lost, repeated and reordered, and both instances want to begin.
fn loose_messages() -> Config {
    Config {
        script: vec![put(0, 1, 1), put(0, 1, 2)],
        swaps: 2,
        ticks: 2,
        crashes: 1,
        loose_messages: true,
        partner_timeout: Some(2),
        second: Initial::Activate,
        ..Config::default()
    }
}

/// Everything at once: too much to be searched.
fn everything() -> Config {
    Config {
        partitions: 2,
        script: vec![put(0, 1, 1), put(1, 2, 1), put(0, 2, 1), remove(0, 1), put(1, 1, 1), put(0, 2, 2), remove(1, 2)],
        retention: Some(12),
        trims: 2,
        ticks: 100,
        swaps: 20,
        crashes: 6,
        zombies: 2,
        timeouts: 3,
        slow_puts: true,
        slow_records: true,
        loose_messages: true,
        partner_timeout: Some(8),
        second: Initial::Activate,
        ..Config::default()
    }
}

#[rstest]
#[case::cleaner(cleaner(), 9)]
#[case::gaps(gaps(), 9)]
#[case::late_requests(late_requests(), 9)]
#[case::zombie(zombie(), 9)]
#[case::loose_messages(loose_messages(), 6)]
fn safe_from_the_beginning(#[case] config: Config, #[case] depth: usize) {
    assert_eq!(search(&config, vec![World::new(&config)], depth), [""; 0]);
}

#[rstest]
#[case::gaps(gaps(), 5)]
#[case::late_requests(late_requests(), 5)]
#[case::zombie(zombie(), 5)]
#[case::loose_messages(loose_messages(), 3)]
fn safe_around_a_fair_run(#[case] config: Config, #[case] depth: usize) {
    assert_eq!(search(&config, walk::fair_run(&config), depth), [""; 0]);
}

/// What is lost without a rule, and that it is not lost with it: the same search both times.
fn is_needed(rule: Rule, lost: &str, config: Config, from: impl Fn(&Config) -> Vec<World>, depth: usize) {
    assert_eq!(search(&config, from(&config), depth), [""; 0], "with all rules");
    let config = Config { rules: Rules::default().without_for_a_test(rule), ..config };
    let found = search(&config, from(&config), depth);
    assert!(found.contains(&lost), "without the rule: {found:?}");
}

/// A key that is superseded and cleaned while a scan is on its way is in neither snapshot.
#[test]
fn without_the_rule_of_the_end_keys_are_lost() {
    is_needed(Rule::Eof, KEYS, cleaner(), |config| vec![World::new(config)], 9);
}

/// A tombstone that comes and goes while a scan is on its way leaves the key in the snapshot.
#[test]
fn without_the_tombstone_rule_deleted_keys_come_back() {
    let config = Config { script: vec![put(0, 1, 1), put(0, 2, 1), remove(0, 1)], ..cleaner() };
    let half_read = |config: &Config| {
        // Both records are there, the first one is read.
        let mut world = World::new(config);
        for action in [Action::Append, Action::Append, Action::Read { process: 0, partition: 0, all: false }] {
            world.act(config, action);
        }
        vec![world]
    };
    is_needed(Rule::Tombstones, KEYS, config, half_read, 9);
}

/// A tombstone that is deleted before a scan has read it leaves the key in the snapshot.
#[test]
fn without_the_gap_rule_deleted_keys_come_back() {
    is_needed(Rule::Gaps, KEYS, gaps(), |config| vec![World::new(config)], 8);
}

/// An owner that was not there when records came and went marks its snapshot and is replaced, without an operator.
/// Also when it dies before it could do either.
#[rstest]
#[case::it_lives(false)]
#[case::it_dies_in_between(true)]
fn an_owner_that_lost_records_is_replaced(#[case] dies: bool) {
    let run = |config: &Config| {
        let mut world = World::new(config);
        let read = Action::Read { process: 0, partition: 0, all: true };
        // Two records are read; a tombstone comes and goes before it is.
        let trim = Action::Trim { partition: 0, to: 3 };
        let way = [Action::Append, Action::Append, read.clone(), Action::Append, trim];
        way.into_iter().for_each(|action| world.act(config, action));
        assert_eq!(world.titles(), 1, "it owns the snapshot");
        if dies {
            // It has met the gap, and the link over it arrives when it is dead.
            let slow = Config { slow_puts: true, ..config.clone() };
            let way = [read, Action::Crash(0), Action::Arrive(0), Action::Start(0)];
            way.into_iter().for_each(|action| world.act(&slow, action));
        }
        walk::goes_on(config, world, 0, 1, 50)
    };
    let world = run(&gaps()).expect("another one takes over");
    assert!(world.found.lost && world.bucket.taints.contains(&1), "its TERM is marked: {:?}", world.bucket.taints);
    assert!(run(&Config { rules: Rules::default().without_for_a_test(Rule::Gaps), ..gaps() }).is_err());
}

/// The partner's word is no proof: its TERM may never come to be.
#[test]
fn without_c1_nothing_may_be_left() {
    is_needed(Rule::Proof, SNAPSHOT, late_requests(), walk::fair_run, 5);
}

fn one_partition() -> Config {
    let script = vec![put(0, 1, 1), put(0, 2, 1)];
    Config { script, swaps: 2, slow_records: true, ..Config::default() }
}

fn is_term(request: &Request) -> bool {
    matches!(request, Request::Term(_))
}

/// The points of a fair run at which such a request of a process is on its way.
fn on_its_way(config: &Config, process: u8, is_it: impl Fn(&Request) -> bool) -> Vec<World> {
    let mut from = walk::fair_run(config);
    from.retain(|world| world.flights.iter().any(|flight| flight.from == process && is_it(&flight.what)));
    assert!(!from.is_empty(), "such requests are made");
    from
}

/// The old owner has read more than its successor has.
#[test]
fn without_waiting_for_the_successor_a_restore_goes_back() {
    is_needed(Rule::Reach, NEVER_BACK, one_partition(), |config| on_its_way(config, 1, is_term), 6);
}

/// The same, when it dies in between: C1 alone lets it clear.
#[test]
fn without_rebuilding_what_to_wait_for_a_restore_goes_back() {
    let config = Config { crashes: 1, ..one_partition() };
    is_needed(Rule::RebuildReach, NEVER_BACK, config, |config| on_its_way(config, 1, is_term), 8);
}

/// The TERM of a dead process arrives while its successor throws the scan away.
#[test]
fn without_void_terms_a_late_one_names_what_is_being_deleted() {
    let config = Config { crashes: 1, ticks: 3, retention: Some(2), swaps: 1, ..one_partition() };
    is_needed(Rule::Void, C1, config, |config| on_its_way(config, 1, is_term), 9);
}

/// The DELETE of a dead process hits the same name of the next run.
#[test]
fn without_the_quarantine_a_late_delete_hits_the_next_run() {
    let config = Config { crashes: 1, ..one_partition() };
    let is_delete = |request: &Request| matches!(request, Request::Delete(..));
    is_needed(Rule::Quarantine, C1, config, |config| on_its_way(config, 0, is_delete), 9);
}

/// A fair run swaps for ever, wherever it begins.
#[test]
fn random_walks_are_safe_and_go_on() {
    let config = everything();
    let (mut turns, mut discarded, mut tainted, mut lost) = (0, 0, 0, 0);
    for seed in 0..200 {
        let (world, way) = walk::walk(&config, seed, 400);
        assert!(world.is_safe(), "seed {seed}: {:?}\n{way:#?}\n{world:#?}", world.found);
        turns += world.titles();
        discarded += usize::from(world.found.discarded);
        tainted += usize::from(world.found.tainted);
        lost += usize::from(world.found.lost);
        if let Err(world) = walk::goes_on(&config, world, u8::MAX, 4, 400) {
            panic!("seed {seed}: no more turns are taken\n{way:#?}\n{world:#?}");
        }
    }
    println!("{turns} turns, walks with a slow scan: {discarded}, a slow owner: {tainted}, lost records: {lost}");
    assert!(turns > 200 && discarded > 0 && tainted > 0 && lost > 0, "the walks lead somewhere");
}

/// Found by a longer walk: before the first TERM, late objects of a discarded run stopped both instances for good.
#[test]
fn late_objects_before_the_first_term_are_got_rid_of() {
    let config = Config { trims: 0, ..everything() };
    let (world, _) = walk::walk(&config, 1868, 400);
    assert!(walk::goes_on(&config, world, u8::MAX, 4, 400).is_ok());
}
