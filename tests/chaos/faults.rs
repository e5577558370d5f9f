//! Faults, drawn by a seed: two at a time, each with its own length, each ended before it counts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use support::Reply;
use tokio::sync::Mutex;

use crate::proxy::Mode;
use crate::world::{LONGEST, Member, World};

/// What was done.
#[derive(Default)]
pub struct Chaos(BTreeMap<&'static str, u64>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillGateway,
    StopGateway,
    /// Longer than a claim's lease.
    FreezeGateway,
    KillRedis,
    FreezeRedis,
    KillBroker,
    FreezeBroker,
    /// An HTTP service that answers 500, 503 or in half.
    FailBroker,
    Delay,
    CutBefore,
    CutAfter,
    Refuse,
    FillDisk,
}

impl Chaos {
    /// So many faults, one after the other on each of two strands.
    pub async fn run(seed: u64, faults: u64, world: &World) -> Chaos {
        let (left, done) = (AtomicU64::new(faults), Mutex::new(Chaos::default()));
        let strand = async |number: u64| {
            let mut chance = StdRng::seed_from_u64(seed.rotate_left(17) ^ number);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                loop {
                    tokio::time::sleep(Duration::from_millis(chance.random_range(20..400))).await;
                    let fault = *kinds(world).choose(&mut chance).unwrap();
                    let member = world.members.choose(&mut chance).unwrap();
                    let hold = Duration::from_millis(chance.random_range(30..1500));
                    if inflict(fault, world, member, hold, &mut chance).await {
                        *done.lock().await.0.entry(fault.name()).or_default() += 1;
                        break;
                    }
                }
            }
        };
        tokio::join!(strand(1), strand(2));
        done.into_inner()
    }
}

/// What can go wrong in this world. What is worth more is there more often.
fn kinds(world: &World) -> Vec<Fault> {
    let mut kinds = vec![Fault::KillGateway, Fault::KillGateway, Fault::StopGateway, Fault::FreezeGateway];
    if world.redis.is_some() {
        kinds.extend([Fault::KillRedis, Fault::FreezeRedis]);
    }
    if world.broker.is_some() {
        kinds.extend([Fault::KillBroker, Fault::FreezeBroker, Fault::FailBroker]);
    }
    if world.members.iter().any(|member| !member.proxies.is_empty()) {
        kinds.extend([Fault::Delay, Fault::CutBefore, Fault::CutAfter, Fault::CutAfter, Fault::Refuse]);
    }
    // Once for every three rounds of the others: it is what can always be had.
    let mut kinds = kinds.repeat(3);
    if world.members.iter().any(|member| member.disk.is_some()) {
        kinds.push(Fault::FillDisk);
    }
    kinds
}

/// Breaks something, waits, and mends it; false where the other strand is at it already, or there is no such thing.
async fn inflict(fault: Fault, world: &World, member: &Member, hold: Duration, chance: &mut StdRng) -> bool {
    match fault {
        Fault::KillGateway | Fault::StopGateway | Fault::FreezeGateway => {
            let Ok(mut gateway) = member.gateway.try_lock() else { return false };
            match fault {
                Fault::KillGateway => gateway.take().unwrap().kill9(),
                Fault::StopGateway => {
                    let mut stopped = gateway.take().unwrap();
                    stopped.sigterm();
                    assert_eq!(stopped.exit().await.code(), Some(0));
                }
                _ => {
                    gateway.as_ref().unwrap().pause();
                    tokio::time::sleep(LONGEST).await;
                    gateway.as_ref().unwrap().resume();
                    return true;
                }
            }
            tokio::time::sleep(hold).await;
            member.restart(&mut gateway).await;
        }
        Fault::KillRedis => {
            let Some(Ok(mut redis)) = world.redis.as_ref().map(Mutex::try_lock) else { return false };
            redis.kill9();
            tokio::time::sleep(hold).await;
            redis.restart().await;
        }
        Fault::FreezeRedis => {
            let Some(Ok(redis)) = world.redis.as_ref().map(Mutex::try_lock) else { return false };
            redis.pause();
            tokio::time::sleep(hold).await;
            redis.resume();
        }
        Fault::KillBroker => {
            let Some(Ok(mut broker)) = world.broker.as_ref().map(Mutex::try_lock) else { return false };
            broker.kill9().await;
            tokio::time::sleep(hold).await;
            broker.restart().await;
        }
        Fault::FreezeBroker => {
            let Some(Ok(broker)) = world.broker.as_ref().map(Mutex::try_lock) else { return false };
            broker.pause();
            tokio::time::sleep(LONGEST).await;
            broker.resume();
        }
        Fault::FailBroker => {
            let Some(Ok(broker)) = world.broker.as_ref().map(Mutex::try_lock) else { return false };
            let failures = [Reply::Status(500), Reply::Status(503), Reply::Cut, Reply::CutWithin];
            if !broker.answer(failures.choose(chance).unwrap().clone()) {
                return false;
            }
            tokio::time::sleep(hold).await;
            broker.resume();
        }
        Fault::Delay | Fault::CutBefore | Fault::CutAfter | Fault::Refuse => {
            let Some(proxy) = member.proxies.choose(chance) else { return false };
            proxy.set(match fault {
                Fault::Delay => Mode::Delay(Duration::from_millis(chance.random_range(20..700))),
                Fault::CutBefore => Mode::CutBefore,
                Fault::CutAfter => Mode::CutAfter,
                _ => Mode::Refuse,
            });
            tokio::time::sleep(hold).await;
            proxy.set(Mode::Pass);
        }
        Fault::FillDisk => {
            let Some(disk) = &member.disk else { return false };
            let Some(filler) = disk.fill_once() else { return false };
            tokio::time::sleep(hold).await;
            std::fs::remove_file(filler).unwrap();
        }
    }
    true
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::KillGateway => "gateway killed",
            Fault::StopGateway => "gateway stopped",
            Fault::FreezeGateway => "gateway frozen",
            Fault::KillRedis => "redis killed",
            Fault::FreezeRedis => "redis frozen",
            Fault::KillBroker => "broker killed",
            Fault::FreezeBroker => "broker frozen",
            Fault::FailBroker => "service failing",
            Fault::Delay => "server delayed",
            Fault::CutBefore => "cut before the request",
            Fault::CutAfter => "cut after the request",
            Fault::Refuse => "server refused",
            Fault::FillDisk => "disk filled",
        }
    }
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.0.iter().map(|(name, count)| format!("{name} {count}")).collect();
        write!(f, "({})", kinds.join(", "))
    }
}
