//! A model of the claimed inbox (`src/inbox/claimed.rs`): two gateways, their spools, a dedupe store and a broker, in every
//! order of their steps and with a fault between any two of them. The checker walks all states; a rule broken on purpose must
//! make it find a way to lose an event, to enter it twice, or to shut it out.
//!
//! What stands for what:
//!
//! | here | there |
//! |---|---|
//! | [`Store::claim`] | `claim.lua`, `embedded.rs` `Ledger::claim` (under `on_conflict = "forward"`) |
//! | [`Store::commit`], [`Store::release`] | `commit.lua`, `release.lua`, and `Ledger::commit`, `Ledger::end` |
//! | [`Step`], [`Action::Go`] | the awaits of `ClaimingPublisher::hand_over`: between two of them anything else may happen |
//! | [`Action::Refuse`] | any `PublishError` but `Unknown` |
//! | [`Action::TimeOut`] | `PublishError::Unknown`: the message may be in, may yet arrive ([`Action::Arrive`]), or never does |
//! | [`Action::CommitUnanswered`] | the store fails at the commit, having done it or not: `EnqueueError::Unknown` |
//! | [`Action::Crash`] | the gateway starts anew: only its spool is left |
//! | [`Action::LeaseEnds`] | time; at any step, so that every owner may be a slow one |
//! | [`Action::Deliver`] | a delivery by the provider, with an owner of its own |
//! | [`Action::Retry`] | the spool admits again what ended as unknown, with the same owner |
//!
//! A spooled event need never be retried here, so that the way without a spool is among the ways.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Checker, HasDiscoveries, Model, Property};

/// The rules of the protocol. All hold in the code; each can be broken here.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// Looking and claiming is one step.
    claim_in_one_step: bool,
    /// A release compares the owner.
    release_compares: bool,
    /// A commit compares the owner.
    commit_compares: bool,
    /// Nothing is remembered before the broker's confirm.
    commit_after_confirm: bool,
    /// No answer before the broker's confirm.
    answer_after_confirm: bool,
    /// No answer before the commit.
    answer_after_commit: bool,
    /// A claim stays while nobody knows whether its message is in.
    unknown_keeps_claim: bool,
    /// A first body whose claim was replaced keeps its id.
    doubt_keeps_id: bool,
    /// A claim has a lease.
    leases: bool,
    /// A body whose bytes are not known is the same as any other.
    unknown_is_any: bool,
}

const RULES: Rules = Rules {
    claim_in_one_step: true,
    release_compares: true,
    commit_compares: true,
    commit_after_confirm: true,
    answer_after_confirm: true,
    answer_after_commit: true,
    unknown_keeps_claim: true,
    doubt_keeps_id: true,
    leases: true,
    unknown_is_any: true,
};

/// How often each thing may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Budget {
    deliveries: u8,
    crashes: u8,
    leases: u8,
    /// Publishes and commits without an answer.
    unknown: u8,
    refusals: u8,
}

/// The model: what may happen, by which rules.
#[derive(Clone)]
struct World {
    rules: Rules,
    budget: Budget,
    /// The bodies that are delivered under the one identity.
    bodies: [Body; 2],
    /// The broker drops a second message of the same id.
    broker_dedupes: bool,
}

type Body = u8;
/// A body out of a provider's log, which may have written it anew: `BodyHash::UNKNOWN`. In truth it is one of the others.
const UNKNOWN: Body = u8::MAX;

/// Whether both are the same body, as far as anybody can know.
fn may_be(one: Body, other: Body) -> bool {
    one == other || one == UNKNOWN || other == UNKNOWN
}

type Owner = u8;

/// The one identity's state, everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    store: Store,
    /// In order, as it is no matter which of them is which.
    gateways: [Gateway; GATEWAYS],
    /// Sent by somebody who no longer waits, and not arrived.
    adrift: BTreeSet<Message>,
    /// What the broker has, each as often as it is there.
    queue: BTreeMap<Message, u8>,
    /// Bodies of which somebody was told 200 by the inbox.
    answered: BTreeSet<Body>,
    left: Budget,
    owners: Owner,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Store {
    claim: Option<Claim>,
    seen: BTreeMap<Body, Flag>,
    /// Somebody ended another's live claim, or committed under it.
    trespassed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Claim {
    owner: Owner,
    body: Body,
    place: Place,
    live: bool,
}

/// As what a body enters: which id it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    First,
    Conflict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Flag {
    Entered(Place),
    /// It may be in as the first.
    Perhaps,
}

/// What the store says to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Granted(Place),
    Duplicate,
    InProgress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Message {
    body: Body,
    place: Place,
    owner: Owner,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Gateway {
    /// In its memory.
    work: Option<Work>,
    /// On its disk.
    spool: BTreeSet<(Owner, Body)>,
}

/// An admission that has asked for its claim. One that was told "duplicate" or "in progress" is at its end at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Work {
    owner: Owner,
    body: Body,
    step: Step,
}

/// What it has done; what it does next is the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    /// Only where a claim is two steps.
    Looked(Place),
    Claimed(Place),
    Sent(Place),
    Confirmed(Place),
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Deliver(usize, Body),
    Retry(usize, Owner, Body),
    Go(usize),
    Refuse(usize),
    /// Whether the message has arrived.
    TimeOut(usize, bool),
    /// Whether the store has done it.
    CommitUnanswered(usize, bool),
    Crash(usize),
    LeaseEnds,
    Arrive(Message),
}

impl Store {
    fn has(&self, rules: &Rules, body: Body) -> bool {
        let same = |other: Body| if rules.unknown_is_any { may_be(other, body) } else { other == body };
        let mut entered = self.seen.iter().filter(|(_, flag)| matches!(flag, Flag::Entered(_)));
        entered.any(|(other, _)| same(*other))
    }

    fn look(&self, rules: &Rules, owner: Owner, body: Body) -> Answer {
        if self.has(rules, body) {
            return Answer::Duplicate;
        }
        if self.claim.is_some_and(|claim| claim.live && claim.owner != owner) {
            return Answer::InProgress;
        }
        let perhaps = self.claim.filter(|claim| claim.place == Place::First).map(|claim| claim.body);
        let first = self.first().or(perhaps.filter(|body| !self.seen.contains_key(body)));
        match first {
            Some(first) if first != body && !(rules.unknown_is_any && may_be(first, body)) => {
                Answer::Granted(Place::Conflict)
            }
            _ => Answer::Granted(Place::First),
        }
    }

    /// The body that has, or perhaps has, the plain id.
    fn first(&self) -> Option<Body> {
        let with = |wanted| self.seen.iter().find(|(_, flag)| **flag == wanted).map(|(body, _)| *body);
        with(Flag::Entered(Place::First)).or_else(|| with(Flag::Perhaps))
    }

    fn take(&mut self, rules: &Rules, owner: Owner, body: Body, place: Place) {
        if let Some(claim) = self.claim {
            self.trespassed |= claim.live && claim.owner != owner;
            if rules.doubt_keeps_id && claim.place == Place::First {
                self.seen.entry(claim.body).or_insert(Flag::Perhaps);
            }
        }
        self.claim = Some(Claim { owner, body, place, live: true });
    }

    fn claim(&mut self, rules: &Rules, owner: Owner, body: Body) -> Answer {
        if !rules.doubt_keeps_id {
            // As if nothing were left of a claim whose lease is over.
            self.claim = self.claim.filter(|claim| claim.live && claim.owner != owner);
        }
        let answer = self.look(rules, owner, body);
        if let Answer::Granted(place) = answer {
            self.take(rules, owner, body, place);
        }
        answer
    }

    fn commit(&mut self, rules: &Rules, owner: Owner, body: Body, place: Place) {
        let anothers = self.claim.is_some_and(|claim| claim.live && claim.owner != owner);
        if anothers && rules.commit_compares {
            return;
        }
        self.trespassed |= anothers;
        if !self.has(rules, body) {
            self.seen.insert(body, Flag::Entered(place));
        }
        self.end(rules.commit_compares, owner);
    }

    fn release(&mut self, rules: &Rules, owner: Owner) {
        self.end(rules.release_compares, owner);
    }

    fn end(&mut self, compares: bool, owner: Owner) {
        if let Some(claim) = self.claim
            && (!compares || claim.owner == owner)
        {
            self.trespassed |= claim.live && claim.owner != owner;
            self.claim = None;
        }
    }
}

impl State {
    fn new(budget: Budget) -> State {
        State {
            store: Store::default(),
            gateways: Default::default(),
            adrift: BTreeSet::new(),
            queue: BTreeMap::new(),
            answered: BTreeSet::new(),
            left: budget,
            owners: 0,
        }
    }

    fn fresh_owner(&mut self) -> Owner {
        self.owners += 1;
        self.owners
    }

    fn has(&self, body: Body) -> bool {
        self.queue.keys().any(|message| may_be(message.body, body))
    }

    /// How many different bodies the queue has.
    fn bodies(&self) -> usize {
        let bodies: BTreeSet<_> = self.queue.keys().map(|message| message.body).collect();
        if bodies.contains(&UNKNOWN) { 1 } else { bodies.len() }
    }

    /// The broker takes a message, or drops it as a copy.
    fn arrive(&mut self, message: Message, dedupes: bool) {
        let id = |of: &Message| (of.place == Place::Conflict).then_some(of.body);
        if !(dedupes && self.queue.keys().any(|there| id(there) == id(&message))) {
            *self.queue.entry(message).or_default() += 1;
        }
    }

    /// The gateway's memory of its work goes; what it sent may still arrive.
    fn forget(&mut self, gateway: usize) -> Option<Work> {
        let work = self.gateways[gateway].work.take()?;
        if let Step::Sent(place) = work.step {
            self.adrift.insert(work.message(place));
        }
        Some(work)
    }

    fn spool(&mut self, gateway: usize, work: Work) {
        self.gateways[gateway].spool.insert((work.owner, work.body));
    }

    /// A 200, which takes it out of the spool too.
    fn done(&mut self, gateway: usize, owner: Owner, body: Body) {
        self.answered.insert(body);
        self.gateways[gateway].spool.remove(&(owner, body));
        self.gateways[gateway].work = None;
    }
}

impl Work {
    fn message(&self, place: Place) -> Message {
        Message { body: self.body, place, owner: self.owner }
    }
}

impl World {
    /// An admission comes to a gateway and asks for its claim.
    fn begin(&self, state: &mut State, gateway: usize, owner: Owner, body: Body) {
        let answer = match self.rules.claim_in_one_step {
            true => state.store.claim(&self.rules, owner, body),
            false => state.store.look(&self.rules, owner, body),
        };
        match answer {
            Answer::Granted(place) => {
                let step =
                    if self.rules.claim_in_one_step { Step::Claimed(place) } else { Step::Looked(place) };
                state.gateways[gateway].work = Some(Work { owner, body, step });
            }
            Answer::Duplicate => state.done(gateway, owner, body),
            // 503; what was in the spool stays there.
            Answer::InProgress => {}
        }
    }

    /// The gateway's next step, undisturbed.
    fn go(&self, state: &mut State, gateway: usize) {
        let Some(work) = state.gateways[gateway].work else { return };
        let (rules, Work { owner, body, step }) = (&self.rules, work);
        let next = match step {
            Step::Looked(place) => {
                state.store.take(rules, owner, body, place);
                Step::Claimed(place)
            }
            Step::Claimed(place) => {
                if !rules.commit_after_confirm {
                    state.store.commit(rules, owner, body, place);
                }
                if !rules.answer_after_confirm {
                    state.answered.insert(body);
                }
                Step::Sent(place)
            }
            Step::Sent(place) => {
                state.arrive(work.message(place), self.broker_dedupes);
                if !rules.answer_after_commit {
                    state.answered.insert(body);
                }
                Step::Confirmed(place)
            }
            Step::Confirmed(place) => {
                state.store.commit(rules, owner, body, place);
                return state.done(gateway, owner, body);
            }
            Step::Refused => {
                state.store.release(rules, owner);
                state.gateways[gateway].work = None;
                return;
            }
        };
        state.gateways[gateway].work = Some(Work { step: next, ..work });
    }

    /// Whether a delivery of each body gets in once faults end: everybody finishes, the lease ends, and it comes again.
    fn lets_in(&self, state: &State) -> bool {
        let mut state = state.clone();
        for gateway in 0..GATEWAYS {
            self.finish(&mut state, gateway);
        }
        self.bodies.into_iter().all(|body| {
            self.end_lease(&mut state);
            state.answered.clear();
            let owner = state.fresh_owner();
            self.begin(&mut state, 0, owner, body);
            self.finish(&mut state, 0);
            state.answered.contains(&body) && state.has(body)
        })
    }

    fn finish(&self, state: &mut State, gateway: usize) {
        while state.gateways[gateway].work.is_some() {
            self.go(state, gateway);
        }
    }

    fn end_lease(&self, state: &mut State) {
        if let Some(claim) = &mut state.store.claim
            && self.rules.leases
        {
            claim.live = false;
        }
    }

    fn faults(&self, state: &State, gateway: usize, actions: &mut Vec<Action>) {
        let Some(work) = state.gateways[gateway].work else { return };
        if state.left.crashes > 0 {
            actions.push(Action::Crash(gateway));
        }
        match work.step {
            Step::Sent(_) => {
                if state.left.refusals > 0 {
                    actions.push(Action::Refuse(gateway));
                }
                if state.left.unknown > 0 {
                    actions.extend([true, false].map(|arrived| Action::TimeOut(gateway, arrived)));
                }
            }
            Step::Confirmed(_) if state.left.unknown > 0 => {
                actions.extend([true, false].map(|done| Action::CommitUnanswered(gateway, done)));
            }
            _ => {}
        }
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.budget)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for gateway in 0..GATEWAYS {
            if state.gateways[gateway].work.is_some() {
                actions.push(Action::Go(gateway));
                self.faults(state, gateway, actions);
                continue;
            }
            if state.left.deliveries > 0 {
                actions.extend(self.bodies.map(|body| Action::Deliver(gateway, body)));
            }
            let waiting = state.gateways[gateway].spool.iter();
            actions.extend(waiting.map(|(owner, body)| Action::Retry(gateway, *owner, *body)));
        }
        if self.rules.leases && state.left.leases > 0 && state.store.claim.is_some_and(|claim| claim.live) {
            actions.push(Action::LeaseEnds);
        }
        actions.extend(state.adrift.iter().map(|message| Action::Arrive(*message)));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Deliver(gateway, body) => {
                state.left.deliveries -= 1;
                let owner = state.fresh_owner();
                self.begin(&mut state, gateway, owner, body);
            }
            Action::Retry(gateway, owner, body) => self.begin(&mut state, gateway, owner, body),
            Action::Go(gateway) => self.go(&mut state, gateway),
            Action::Refuse(gateway) => {
                state.left.refusals -= 1;
                state.gateways[gateway].work.as_mut()?.step = Step::Refused;
            }
            Action::TimeOut(gateway, arrived) => {
                state.left.unknown -= 1;
                if arrived {
                    self.go(&mut state, gateway);
                }
                let work = state.forget(gateway)?;
                state.spool(gateway, work);
                if !self.rules.unknown_keeps_claim {
                    state.store.release(&self.rules, work.owner);
                }
            }
            Action::CommitUnanswered(gateway, done) => {
                state.left.unknown -= 1;
                let work = state.forget(gateway)?;
                state.spool(gateway, work);
                if let (true, Step::Confirmed(place)) = (done, work.step) {
                    state.store.commit(&self.rules, work.owner, work.body, place);
                }
            }
            Action::Crash(gateway) => {
                state.left.crashes -= 1;
                state.forget(gateway)?;
            }
            Action::LeaseEnds => {
                state.left.leases -= 1;
                self.end_lease(&mut state);
            }
            Action::Arrive(message) => {
                state.adrift.remove(&message);
                state.arrive(message, self.broker_dedupes);
            }
        }
        state.gateways.sort();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<World>> {
        vec![
            Property::always(NO_LOSS, |_, state: &State| state.answered.iter().all(|body| state.has(*body))),
            Property::always(NO_LOCK_OUT, |world: &World, state| world.lets_in(state)),
            Property::always(NO_TRESPASS, |_, state: &State| !state.store.trespassed),
            Property::always(ONE_ID, |_, state: &State| {
                let mut pairs =
                    state.queue.keys().flat_map(|one| state.queue.keys().map(move |other| (one, other)));
                pairs.all(|(one, other)| !may_be(one.body, other.body) || one.place == other.place)
            }),
            Property::always(ONE_PUBLISHER, |world: &World, state: &State| {
                let senders: BTreeSet<_> = state.queue.keys().map(|message| message.owner).collect();
                let Budget { leases, refusals, .. } = state.left;
                let undisturbed = (leases, refusals) == (world.budget.leases, world.budget.refusals);
                !undisturbed || senders.len() == state.bodies()
            }),
            Property::always(ONE_MESSAGE, |world: &World, state: &State| {
                let Budget { crashes, leases, unknown, .. } = state.left;
                let undisturbed = (crashes, leases, unknown)
                    == (world.budget.crashes, world.budget.leases, world.budget.unknown);
                !undisturbed || state.queue.values().map(|n| usize::from(*n)).sum::<usize>() == state.bodies()
            }),
            Property::sometimes("both bodies get in", |world: &World, state: &State| {
                world.bodies.iter().all(|body| state.has(*body) && state.answered.contains(body))
            }),
        ]
    }
}

const GATEWAYS: usize = 2;

/// Whoever was answered 200 finds the body in the queue.
const NO_LOSS: &str = "what was answered is in the queue";
const NO_LOCK_OUT: &str = "once faults end, every delivery gets in";
const NO_TRESPASS: &str = "nobody ends another's live claim, or commits under it";
const ONE_ID: &str = "a body is in the queue under one id only";
/// A refused retry releases what an earlier try of the same owner may have brought in: the next owner then sends it again, under
/// the same id.
const ONE_PUBLISHER: &str = "while no lease ends and nothing is refused, a body has one publisher";
const ONE_MESSAGE: &str = "without crash, end of lease and unknown outcome, a body is in the queue once";

/// Every fault, and all of them together.
const EVERYTHING: Budget = Budget { deliveries: 3, crashes: 1, leases: 2, unknown: 1, refusals: 1 };

fn world(rules: Rules, broker_dedupes: bool) -> World {
    World { rules, budget: EVERYTHING, bodies: [0, 1], broker_dedupes }
}

/// A genuine delivery, and what a provider's log has of it.
fn reconciled(rules: Rules, broker_dedupes: bool) -> World {
    World { bodies: [0, UNKNOWN], ..world(rules, broker_dedupes) }
}

/// Walks all states: every property must hold in each.
fn assert_holds(world: World) {
    let checker = world.checker().threads(2).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

/// Walks until it finds how this property breaks.
#[track_caller]
fn assert_breaks(rules: Rules, property: &'static str) {
    assert_breaks_in([false, true].map(|broker_dedupes| world(rules, broker_dedupes)), property);
}

#[track_caller]
fn assert_breaks_in(worlds: [World; 2], property: &'static str) {
    let found = worlds.into_iter().any(|world| {
        let wanted = HasDiscoveries::AllOf([property].into());
        let checker = world.checker().finish_when(wanted).spawn_bfs().join();
        checker.discovery(property).is_some()
    });
    assert!(found, "the checker did not see that this breaks: {property}");
}

#[test]
fn the_rules_hold_whatever_happens_before_a_broker_that_takes_everything() {
    assert_holds(world(RULES, false));
}

#[test]
fn the_rules_hold_whatever_happens_before_a_broker_that_drops_copies() {
    assert_holds(world(RULES, true));
}

#[test]
fn the_rules_hold_for_a_delivery_and_a_copy_of_unknown_bytes() {
    assert_holds(reconciled(RULES, false));
    assert_holds(reconciled(RULES, true));
}

#[test]
fn a_copy_of_unknown_bytes_that_counts_as_another_body_enters_twice() {
    let rules = Rules { unknown_is_any: false, ..RULES };
    let worlds = [false, true].map(|broker_dedupes| reconciled(rules, broker_dedupes));
    assert_breaks_in(worlds.clone(), ONE_ID);
    assert_breaks_in(worlds, ONE_MESSAGE);
}

#[test]
fn a_claim_in_two_steps_lets_two_in() {
    let rules = Rules { claim_in_one_step: false, ..RULES };
    assert_breaks(rules, ONE_MESSAGE);
    assert_breaks(rules, NO_TRESPASS);
}

#[test]
fn a_release_that_does_not_compare_ends_anothers_claim() {
    assert_breaks(Rules { release_compares: false, ..RULES }, NO_TRESPASS);
}

#[test]
fn a_commit_that_does_not_compare_ends_anothers_claim() {
    assert_breaks(Rules { commit_compares: false, ..RULES }, NO_TRESPASS);
}

#[test]
fn a_commit_before_the_confirm_loses() {
    assert_breaks(Rules { commit_after_confirm: false, ..RULES }, NO_LOSS);
}

#[test]
fn an_answer_before_the_confirm_loses() {
    assert_breaks(Rules { answer_after_confirm: false, ..RULES }, NO_LOSS);
}

/// The message is in the queue by then. The code waits all the same: only then is a redelivery told so.
#[test]
fn an_answer_between_confirm_and_commit_loses_nothing() {
    let budget = Budget { leases: 1, ..EVERYTHING };
    assert_holds(World { budget, ..world(Rules { answer_after_commit: false, ..RULES }, true) });
}

#[test]
fn a_release_upon_an_unknown_outcome_lets_a_second_publisher_in() {
    let rules = Rules { unknown_keeps_claim: false, ..RULES };
    assert_breaks(rules, ONE_PUBLISHER);
    assert_breaks(rules, NO_LOSS);
}

#[test]
fn a_first_body_that_may_be_in_and_is_forgotten_swallows_the_next() {
    let rules = Rules { doubt_keeps_id: false, ..RULES };
    assert_breaks(rules, NO_LOSS);
    assert_breaks(rules, ONE_ID);
}

#[test]
fn a_claim_without_a_lease_shuts_out_for_ever() {
    assert_breaks(Rules { leases: false, ..RULES }, NO_LOCK_OUT);
}
