//! Long random walks through models that are too large to be searched whole, and what must follow when nothing more goes
//! wrong.

use crate::world::{Action, Config, Left, World};

/// A small generator of numbers: one seed, one walk.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Walks `steps` steps at random; the world at the end, or where it went wrong, and the way there.
pub fn walk(config: &Config, seed: u64, steps: usize) -> (World, Vec<Action>) {
    let mut dice = Dice::new(seed);
    let mut world = World::new(config);
    let mut way = Vec::new();
    for _ in 0..steps {
        let mut actions = world.actions(config);
        if actions.is_empty() || !world.is_safe() {
            break;
        }
        let action = actions.swap_remove(dice.below(actions.len()));
        way.push(action.clone());
        world.act(config, action);
    }
    (world, way)
}

/// The worlds on the way through a run with all its turns in which nothing goes wrong: where to begin a search that is
/// to see what can go wrong at each point of it.
pub fn fair_run(config: &Config) -> Vec<World> {
    let swaps = config.swaps;
    let mut fair = Config {
        trims: 0,
        crashes: 0,
        zombies: 0,
        timeouts: 0,
        loose_messages: false,
        ticks: u8::MAX,
        ..config.clone()
    };
    // The last record is left for the search to append.
    fair.script.pop();
    let mut world = World::new(&fair);
    world.left = Left { trims: 0, swaps, crashes: 0, zombies: 0, timeouts: 0 };
    let mut worlds = vec![world.clone()];
    for _ in 0..100 {
        let before = world.clone();
        for action in world.actions(&fair) {
            let is_quiet = matches!(action, Action::Tick | Action::Clean | Action::Read { all: false, .. });
            if is_quiet || !world.actions(&fair).contains(&action) {
                continue;
            }
            world.act(&fair, action);
            if worlds.last() != Some(&world) {
                worlds.push(world.clone());
            }
        }
        if world == before {
            break;
        }
    }
    assert!(world.titles() > usize::from(swaps), "the turns are taken: {world:?}");
    worlds
}

/// From here on nothing goes wrong: all processes run, every request arrives, every lane reads, and the operator asks
/// for a turn up to `swaps` times, whenever there is an owner. The world at the end.
///
/// # Errors
/// Fewer than `turns` more are taken within `rounds`: the world at the end.
pub fn goes_on(config: &Config, mut world: World, swaps: u8, turns: usize, rounds: usize) -> Result<World, Box<World>> {
    let fair = Config { trims: 0, crashes: 0, zombies: 0, timeouts: 0, loose_messages: false, ..config.clone() };
    world.left = Left { trims: 0, swaps, crashes: 0, zombies: 0, timeouts: 0 };
    let before = world.titles();
    for round in 0..rounds {
        if world.titles() >= before + turns || !world.is_safe() {
            break;
        }
        while !world.flights.is_empty() {
            world.act(&fair, Action::Arrive(0));
        }
        for action in world.actions(&Config { ticks: 0, ..fair.clone() }) {
            let is_quiet = matches!(action, Action::Read { all: false, .. } | Action::Arrive(_) | Action::Append);
            // An earlier one of the round may have made it meaningless.
            if !is_quiet && world.actions(&fair).contains(&action) {
                world.act(&fair, action);
            }
        }
        if round % 4 == 3 {
            world.act(&fair, Action::Tick);
        }
        for (i, message) in world.partner_messages() {
            world.act(&fair, Action::Deliver { process: i, message });
        }
    }
    if world.is_safe() && world.titles() >= before + turns { Ok(world) } else { Err(Box::new(world)) }
}
