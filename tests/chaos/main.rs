//! The obligation oracle: providers deliver while everything around the gateway is killed, frozen, cut off and filled up. A
//! 2xx is an obligation: at the end the event must be in the queue, as it was sent, and once.
//!
//!     tests/run --test chaos                        # some faults for each kind of queue
//!     tests/chaos/run                               # 200 faults for each
//!     HOOKGATE_CHAOS_SEED=7 tests/chaos/run nats    # one kind of queue, the faults of that seed
//!
//! The seed decides which faults come when; what they meet is up to the machine.

mod catching_up;
mod faults;
mod ledger;
mod providers;
mod proxy;
mod world;

use faults::Chaos;
use ledger::Copies;
use providers::Providers;
use world::World;

// More than one thread: while the queue is read by a command, proxies must go on.
#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    ordeal("embedded", World::embedded().await, Copies::One).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    ordeal("redis", World::redis().await, Copies::One).await;
}

// The stream remembers message ids for longer than any lease: not even a lost confirm makes a second copy.
#[tokio::test(flavor = "multi_thread")]
async fn nats() {
    ordeal("nats", World::nats().await, Copies::One).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_with_embedded_dedupe() {
    ordeal("nats with embedded dedupe", World::nats_alone().await, Copies::One).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq() {
    ordeal("rabbitmq", World::rabbitmq().await, Copies::SameId).await;
}

// The service takes an event again where its answer was lost.
#[tokio::test(flavor = "multi_thread")]
async fn http() {
    ordeal("http", World::http().await, Copies::SameId).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_with_embedded_dedupe() {
    ordeal("http with embedded dedupe", World::http_alone().await, Copies::SameId).await;
}

/// Lets it all happen, then holds the queue against what was promised.
async fn ordeal(name: &str, world: World, copies: Copies) {
    let (seed, faults) = (number("HOOKGATE_CHAOS_SEED", random()), number("HOOKGATE_CHAOS_FAULTS", 10));
    eprintln!("chaos {name}: HOOKGATE_CHAOS_SEED={seed} HOOKGATE_CHAOS_FAULTS={faults}");
    let providers = Providers::start(seed, world.edges());
    let chaos = Chaos::run(seed, faults, &world).await;
    world.heal().await;
    let ledger = providers.finish().await;
    world.settle().await;
    let report = ledger.hold_against(&world.queue().await, copies);
    eprintln!("chaos {name}: {faults} faults {chaos}; {report}");
    world.a_fresh_event_flows().await;
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

fn random() -> u64 {
    u64::from(u32::from_le_bytes(hookgate::base::clock::random()))
}
