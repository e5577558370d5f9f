//! `hookgate subscriptions` against the providers' simulators: convergence, secrets, faults, and what is never touched.

mod unexpected;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use support::providers::{Anduin, Atelio, Basiq, Call, Fault, Iof, Securitize, Simulated, Simulator};
use support::{Gateway, Home, Ran};

const URL: &str = "https://hooks.example.com/hooks/it";
const DOMAIN: &str = "c2f82d16-178c-48ea-95c0-f72227c6fef4";

/// A provider with a config for it.
trait Case: Simulated {
    const NAME: &'static str;
    /// Whether it has a secret.
    const HAS_SECRET: bool = true;
    /// Two event types, as declared and as the API lists them.
    const EVENTS: [&'static str; 2];
    /// The field of a subscription that has its URL.
    const URL_FIELD: &'static str = "url";

    fn start() -> Simulator<Self>;
    /// The keys of `api` besides `base`.
    fn api() -> String;
    /// More keys of the subscription.
    fn more() -> String {
        String::new()
    }
    /// A subscription of this URL and event type, as the API has it.
    fn subscription(url: &str, event: &str) -> Value;
    /// The change that disables a subscription.
    fn disable(subscription: &mut Value);
    fn is_active(subscription: &Value) -> bool;
}

impl Case for support::providers::securitize::Provider {
    const NAME: &'static str = "securitize";
    const HAS_SECRET: bool = false;
    const EVENTS: [&'static str; 2] =
        ["domain-investor-kyc-update", "domain-investor-subscription-agreement-update"];
    const URL_FIELD: &'static str = "payloadUrl";

    fn start() -> Securitize {
        Securitize::start()
    }
    fn api() -> String {
        format!("key = {:?}", Securitize::KEY)
    }
    fn more() -> String {
        format!("domains = [{DOMAIN:?}]")
    }
    fn subscription(url: &str, event: &str) -> Value {
        json!({ "payloadUrl": url, "eventType": event, "domainId": DOMAIN })
    }
    fn disable(subscription: &mut Value) {
        subscription["isActive"] = false.into();
    }
    fn is_active(subscription: &Value) -> bool {
        subscription["isActive"] == true
    }
}

impl Case for support::providers::anduin::Provider {
    const NAME: &'static str = "anduin";
    const HAS_SECRET: bool = false;
    const EVENTS: [&'static str; 2] = ["new_investor_added", "documents_uploaded"];

    fn start() -> Anduin {
        Anduin::start()
    }
    fn api() -> String {
        format!("key = {:?}", Anduin::KEY)
    }
    fn more() -> String {
        format!("funds = [{:?}]", Anduin::FUND)
    }
    fn subscription(url: &str, event: &str) -> Value {
        json!({ "url": url, "enabledEvents": [event] })
    }
    fn disable(subscription: &mut Value) {
        subscription["isActive"] = false.into();
    }
    fn is_active(subscription: &Value) -> bool {
        subscription["isActive"] == true
    }
}

impl Case for support::providers::basiq::Provider {
    const NAME: &'static str = "basiq";
    const EVENTS: [&'static str; 2] = ["user.created", "consent.*"];

    fn start() -> Basiq {
        Basiq::start()
    }
    fn api() -> String {
        format!("key = {:?}", Basiq::KEY)
    }
    fn subscription(url: &str, event: &str) -> Value {
        json!({ "url": url, "subscribedEvents": [event.replace('*', "created")] })
    }
    fn disable(subscription: &mut Value) {
        subscription["status"] = "disabled".into();
    }
    fn is_active(subscription: &Value) -> bool {
        subscription["status"] == "active"
    }
}

impl Case for support::providers::atelio::Provider {
    const NAME: &'static str = "atelio";
    const EVENTS: [&'static str; 2] = ["card.*", "kyc.verification.success"];

    fn start() -> Atelio {
        Atelio::start()
    }
    fn api() -> String {
        format!("identity = {:?}, authorization = {:?}", Atelio::IDENTITY, Atelio::AUTHORIZATION)
    }
    fn subscription(url: &str, event: &str) -> Value {
        json!({ "url": url, "events": [event] })
    }
    fn disable(subscription: &mut Value) {
        subscription["status"] = "STATUS_DISABLED".into();
    }
    fn is_active(subscription: &Value) -> bool {
        subscription["status"] == "STATUS_ENABLED"
    }
}

impl Case for support::providers::iof::Provider {
    const NAME: &'static str = "iof";
    const EVENTS: [&'static str; 2] = ["contract.*", "kyc.verified"];

    fn start() -> Iof {
        Iof::start()
    }
    fn api() -> String {
        format!("key = {:?}", Iof::KEY)
    }
    fn subscription(url: &str, event: &str) -> Value {
        json!({ "url": url, "events": [event] })
    }
    fn disable(subscription: &mut Value) {
        subscription["status"] = "disabled".into();
    }
    fn is_active(subscription: &Value) -> bool {
        subscription["status"] == "active"
    }
}

/// A config with one source, `it`.
struct Desk<C: Case> {
    home: Home,
    api: Simulator<C>,
    /// The URL that the source declares.
    url: String,
    /// The gateway at that URL, where the provider asks it.
    _gateway: Option<(Home, Gateway)>,
}

impl<C: Case> Desk<C> {
    fn new() -> Desk<C> {
        let (mut url, mut gateway) = (URL.to_owned(), None);
        if C::NAME == "anduin" {
            let home = Home::new("[sources.it]\nprovider = \"anduin\"\nunauthenticated = true\n");
            let serving = home.gateway();
            url = format!("http://{}/hooks/it", serving.edge);
            gateway = Some((home, serving));
        }
        let api = C::start();
        let home = Home::exactly(&config::<C>(&api, &url, &C::EVENTS));
        Desk { home, api, url, _gateway: gateway }
    }

    /// Declares other events.
    fn declare(&self, events: &[&str]) {
        self.home.write("hookgate.toml", config::<C>(&self.api, &self.url, events));
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let ran = self.home.run(&[&["subscriptions"], arguments, &["--json"]].concat());
        for secret in self.api.secrets() {
            assert!(!ran.out.contains(&secret) && !ran.err.contains(&secret), "a secret is printed: {ran:?}");
        }
        ran
    }

    /// Applies, which must succeed. Returns the actions.
    fn apply(&self) -> Vec<String> {
        let ran = self.run(&["apply"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.json().iter().for_each(|line| assert_eq!(line["done"], true, "{line}"));
        actions(&ran)
    }

    /// Nothing is left to do, and to find that out changes nothing.
    fn has_converged(&self) {
        self.api.forget_calls();
        let plan = self.run(&["plan", "--detailed-exitcode"]);
        assert_eq!(plan.code, 0, "{plan:?}\n{:#?}", self.api.subscriptions());
        let again = self.apply();
        assert!(again.iter().all(|action| action == "none"), "{again:?}");
        assert_eq!(writes(&self.api), Vec::<(String, String)>::new());
        for ours in self.ours() {
            assert!(C::is_active(&ours), "{ours}");
        }
        if C::HAS_SECRET && !self.ours().is_empty() {
            let [ours] = self.ours().try_into().unwrap();
            assert_eq!(fs::read_to_string(self.secret_file()).unwrap(), ours["secret"].as_str().unwrap());
            let mode = fs::metadata(self.secret_file()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    fn ours(&self) -> Vec<Value> {
        let mut all = self.api.subscriptions();
        all.retain(|one| one[C::URL_FIELD] == *self.url);
        all
    }

    fn secret_file(&self) -> PathBuf {
        self.home.path("it.secret")
    }
}

fn config<C: Case>(api: &Simulator<C>, url: &str, events: &[&str]) -> String {
    let secret = if C::HAS_SECRET { "secret_file = \"it.secret\"\n" } else { "" };
    let authentic =
        if C::HAS_SECRET { "secrets = [{ file = \"it.secret\" }]" } else { "unauthenticated = true" };
    format!(
        "edge.public_url = \"https://hooks.example.com\"\n[sources.it]\nprovider = {:?}\n{authentic}\n\
         [sources.it.subscription]\nurl = {url:?}\nevents = {events:?}\n{}\n{secret}api = {{ base = {:?}, {} }}\n",
        C::NAME,
        C::more(),
        api.url(),
        C::api(),
    )
}

fn actions(ran: &Ran) -> Vec<String> {
    ran.json().iter().map(|line| line["action"].as_str().unwrap().to_owned()).collect()
}

/// Method and path of the calls that are meant to change anything.
fn writes<P: Simulated>(api: &Simulator<P>) -> Vec<(String, String)> {
    api.writes()
        .iter()
        .map(Call::target)
        .filter(|(_, path)| *path != "/token")
        .map(|(method, path)| (method.to_owned(), path.to_owned()))
        .collect()
}

macro_rules! for_each_provider {
    ($($(#[$meta:meta])* $test:ident;)+) => {
        $(mod $test {
            #[test] fn securitize() { super::$test::<support::providers::securitize::Provider>(); }
            #[test] fn anduin() { super::$test::<support::providers::anduin::Provider>(); }
            #[test] fn basiq() { super::$test::<support::providers::basiq::Provider>(); }
            #[test] fn atelio() { super::$test::<support::providers::atelio::Provider>(); }
            #[test] fn iof() { super::$test::<support::providers::iof::Provider>(); }
        })+
    };
}

for_each_provider! {
    what_is_declared_comes_to_be;
    what_differs_is_put_right;
    any_state_converges;
    one_fault_is_healed_by_a_repeat;
    a_refused_key_is_named;
}

fn what_is_declared_comes_to_be<C: Case>() {
    let desk = Desk::<C>::new();
    let plan = desk.run(&["plan", "--detailed-exitcode"]);
    assert_eq!(plan.code, 3, "{plan:?}");
    assert!(actions(&plan).iter().all(|action| action == "create"), "{plan:?}");
    assert!(plan.json().iter().all(|line| line["id"].is_null() && line["source"] == "it"));
    assert_eq!(writes(&desk.api), [], "a plan changes nothing");
    assert_eq!(desk.run(&["plan"]).code, 0);
    desk.apply();
    assert!(!desk.ours().is_empty());
    desk.has_converged();
    let listed = desk.run(&["list"]).json();
    assert!(listed.iter().all(|line| line["active"] == true && line["declared"] == true), "{listed:?}");
    // [] leaves none.
    desk.declare(&[]);
    assert!(desk.apply().iter().all(|action| action == "delete"));
    assert_eq!(desk.ours(), Vec::<Value>::new());
    desk.has_converged();
}

fn what_differs_is_put_right<C: Case>() {
    let desk = Desk::<C>::new();
    desk.apply();
    let ids = || -> Vec<Value> { desk.ours().iter().map(|one| one["id"].clone()).collect() };
    let before = ids();
    let one = before[0].as_str().unwrap().to_owned();
    desk.api.change(&one, C::disable);
    assert!(desk.apply().contains(&"update".to_owned()));
    desk.has_converged();
    assert_eq!(ids(), before, "updated and not made anew");
    // Another event type goes.
    desk.declare(&C::EVENTS[..1]);
    let done = desk.apply();
    assert!(done.iter().any(|action| action == "update" || action == "delete"), "{done:?}");
    desk.has_converged();
    // What others have is not touched.
    let foreign = desk.api.add(C::subscription("https://elsewhere.example.com/hooks", C::EVENTS[1]));
    desk.has_converged();
    assert!(desk.api.subscriptions().iter().any(|one| one["id"] == *foreign));
}

/// A small generator of numbers: the states are the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Puts any state there: ours and others', disabled, twice, with other events.
fn any_state<C: Case>(desk: &Desk<C>, draw: &mut Draw) {
    for _ in 0..draw.below(4) {
        let url = [&*desk.url, "https://hooks.example.com/hooks/old", "https://elsewhere.example.com/"]
            [draw.below(3) as usize];
        // An event type of Basiq belongs to one webhook.
        let of_others = C::NAME == "basiq" && url != desk.url;
        let event = if of_others { "account.updated" } else { C::EVENTS[draw.below(2) as usize] };
        let id = desk.api.add(C::subscription(url, event));
        if draw.below(3) == 0 {
            desk.api.change(&id, C::disable);
        }
    }
    if C::HAS_SECRET && draw.below(2) == 0 {
        desk.home.write("it.secret", "whsec_another_text_than_the_secret");
    }
}

/// IOF lists nothing, so that what was there before is not known to be ours.
fn forget_unlisted<C: Case>(desk: &Desk<C>) {
    if C::NAME == "iof" {
        for one in desk.ours() {
            desk.api.remove(one["id"].as_str().unwrap());
        }
    }
}

fn any_state_converges<C: Case>() {
    let mut draw = Draw(7);
    for _ in 0..8 {
        let desk = Desk::<C>::new();
        any_state(&desk, &mut draw);
        forget_unlisted(&desk);
        let others: Vec<Value> =
            desk.api.subscriptions().into_iter().filter(|one| one[C::URL_FIELD] != *desk.url).collect();
        desk.apply();
        desk.has_converged();
        for other in others {
            assert!(desk.api.subscriptions().contains(&other), "{other}");
        }
    }
}

fn one_fault_is_healed_by_a_repeat<C: Case>() {
    let faults = [
        Fault::Status(500),
        Fault::TooMany(None),
        Fault::TooMany(Some("1".to_owned())),
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::Status(400),
        Fault::Redirect("https://elsewhere.example.com/".to_owned()),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let desk = Desk::<C>::new();
        // The fault meets one of the writes.
        let (mut at, fault_now) = (number % 2, fault.clone());
        let mut is_done = false;
        desk.api.fail_when(move |call| {
            if is_done || call.method == "GET" || call.target().1 == "/token" {
                return None;
            }
            if at > 0 {
                at -= 1;
                return None;
            }
            is_done = true;
            Some(fault_now.clone())
        });
        let ran = desk.run(&["apply"]);
        assert!(matches!(ran.code, 0 | 1), "{ran:?}");
        let retried = !matches!(fault, Fault::Status(400) | Fault::Redirect(_));
        assert!(!retried || ran.code == 0, "{fault:?}: {ran:?}");
        desk.apply();
        desk.has_converged();
        let expected = if C::NAME == "securitize" { C::EVENTS.len() } else { 1 };
        assert_eq!(desk.ours().len(), expected, "{fault:?}: none is made twice");
    }
}

fn a_refused_key_is_named<C: Case>() {
    let desk = Desk::<C>::new();
    let text = fs::read_to_string(desk.home.path("hookgate.toml")).unwrap();
    let wrong = text.replace(&C::api(), &C::api().replace("made", "other").replace("YmFz", "YmFa"));
    assert_ne!(text, wrong);
    desk.home.write("hookgate.toml", wrong);
    // IOF lists nothing, so only a create asks it.
    let commands: &[&str] = if C::NAME == "iof" { &["apply"] } else { &["plan", "apply", "list"] };
    for command in commands {
        let ran = desk.run(&[command]);
        assert_eq!(ran.code, 1, "{ran:?}");
        let said = ran.json()[0]["error"].as_str().unwrap().to_owned();
        assert!(said.contains("401") && said.contains("sources.it.subscription.api."), "{said}");
    }
}

type AtBasiq = Desk<support::providers::basiq::Provider>;
type AtAtelio = Desk<support::providers::atelio::Provider>;
type AtIof = Desk<support::providers::iof::Provider>;
type AtSecuritize = Desk<support::providers::securitize::Provider>;

const SECRET_OF_ANOTHER: &str = "whsec_another_text_than_the_secret";

fn error_of(ran: &Ran) -> String {
    assert_eq!(ran.code, 1, "{ran:?}");
    let failed: Vec<Value> = ran.json().into_iter().filter(|line| !line["error"].is_null()).collect();
    failed[0]["error"].as_str().unwrap().to_owned()
}

#[test]
fn a_missing_or_other_secret_file_is_written_anew() {
    fn of<C: Case>() {
        let desk = Desk::<C>::new();
        desk.apply();
        for text in [None, Some(SECRET_OF_ANOTHER)] {
            match text {
                Some(text) => fs::write(desk.secret_file(), text).unwrap(),
                None => fs::remove_file(desk.secret_file()).unwrap(),
            }
            let plan = desk.run(&["plan", "--detailed-exitcode"]);
            assert_eq!((plan.code, actions(&plan)), (3, vec!["update".to_owned()]), "{plan:?}");
            assert!(plan.json()[0]["detail"]["secret"].is_string(), "{plan:?}");
            desk.apply();
            desk.has_converged();
        }
        assert_eq!(desk.ours().len(), 1);
    }
    of::<support::providers::basiq::Provider>();
    of::<support::providers::atelio::Provider>();
}

#[test]
fn a_secret_that_is_shown_once_needs_a_new_subscription() {
    let desk = AtIof::new();
    desk.apply();
    let before = desk.ours()[0]["id"].clone();
    for text in [None, Some(SECRET_OF_ANOTHER)] {
        match text {
            Some(text) => fs::write(desk.secret_file(), text).unwrap(),
            None => fs::remove_file(desk.secret_file()).unwrap(),
        }
        let said = error_of(&desk.run(&["apply"]));
        assert!(said.contains("--recreate"), "{said}");
        let ran = desk.run(&["apply", "--recreate"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        desk.has_converged();
    }
    assert_ne!(desk.ours()[0]["id"], before);
}

#[test]
fn a_secret_file_that_cannot_be_written_stops_the_create() {
    for (place, name) in [("absent/it.secret", "absent"), ("folder", "folder")] {
        let desk = AtBasiq::new();
        fs::create_dir(desk.home.path("folder")).unwrap();
        let text = fs::read_to_string(desk.home.path("hookgate.toml")).unwrap();
        desk.home.write(
            "hookgate.toml",
            text.replace("secret_file = \"it.secret\"", &format!("secret_file = {place:?}")),
        );
        let said = error_of(&desk.run(&["apply"]));
        assert!(said.contains("cannot write the secret file") && said.contains(name), "{said}");
        assert_eq!(writes(&desk.api), [], "nothing was created");
    }
}

#[test]
fn a_create_without_an_answer_in_ten_seconds_is_looked_for_and_not_repeated() {
    let desk = AtBasiq::new();
    let an_hour = Duration::from_secs(3600);
    desk.api.fail(1, "POST /notifications/webhooks", Fault::Slow(an_hour));
    desk.apply();
    desk.has_converged();
    assert_eq!(desk.ours().len(), 1);
}

#[test]
fn a_lost_answer_of_a_create_is_settled_by_its_key() {
    let desk = AtIof::new();
    // No attempt is answered, and each has its effect.
    desk.api.fail(3, "POST /v1/webhooks/endpoints", Fault::CutAfter);
    let ran = desk.run(&["apply"]);
    assert!(error_of(&ran).contains("cannot be reached"), "{ran:?}");
    assert_eq!(desk.run(&["plan", "--detailed-exitcode"]).code, 3);
    let kept = fs::read_to_string(desk.home.path("data/subscriptions.json")).unwrap();
    assert!(kept.contains("\"create\""), "{kept}");
    let keys = |desk: &AtIof| -> Vec<String> {
        let creates = desk.api.writes().into_iter().filter(|call| call.method == "POST");
        creates.map(|call| call.header("x-idempotency-key").unwrap().to_owned()).collect()
    };
    desk.apply();
    let keys = keys(&desk);
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| *key == keys[0]), "one key: {keys:?}");
    assert_eq!(desk.ours().len(), 1);
    desk.has_converged();
}

#[test]
fn a_refused_key_forgets_no_create_whose_answer_was_lost() {
    let desk = AtIof::new();
    desk.api.fail(3, "POST /v1/webhooks/endpoints", Fault::CutAfter);
    error_of(&desk.run(&["apply"]));
    desk.api.fail(1, "POST /v1/webhooks/endpoints", Fault::Status(401));
    assert!(error_of(&desk.run(&["apply"])).contains("401"));
    desk.apply();
    assert_eq!(desk.ours().len(), 1);
    desk.has_converged();
}

#[test]
fn a_replaced_subscription_that_could_not_be_deleted_goes_at_the_next_run() {
    let desk = AtIof::new();
    desk.apply();
    let before = desk.ours()[0]["id"].clone();
    fs::remove_file(desk.secret_file()).unwrap();
    desk.api.fail(1, "DELETE /v1/webhooks/endpoints", Fault::Status(400));
    error_of(&desk.run(&["apply", "--recreate"]));
    assert_eq!(desk.ours().len(), 2);
    desk.apply();
    desk.has_converged();
    assert_ne!(desk.ours()[0]["id"], before);
}

#[test]
fn a_second_one_goes_and_a_changed_url_is_an_update() {
    let desk = AtBasiq::new();
    desk.apply();
    let ours = desk.ours()[0]["id"].clone();
    // A second one would deliver under another secret.
    desk.api.add(json!({ "url": desk.url, "subscribedEvents": ["account.updated"] }));
    assert_eq!(desk.apply(), ["delete", "none"]);
    desk.has_converged();
    let other = "https://hooks.example.com/hooks/moved";
    let text = fs::read_to_string(desk.home.path("hookgate.toml")).unwrap();
    desk.home.write("hookgate.toml", text.replace(&desk.url, other));
    assert_eq!(desk.apply(), ["update"]);
    assert_eq!(desk.api.subscriptions()[0]["url"], other);
    assert_eq!(desk.api.subscriptions()[0]["id"], ours);
}

#[test]
fn only_prune_deletes_what_no_source_declares_and_only_under_the_public_url() {
    let desk = AtAtelio::new();
    let stale = desk.api.add(json!({ "url": "https://hooks.example.com/hooks/old" }));
    let elsewhere = desk.api.add(json!({ "url": "https://hooks.example.com.evil.example/hooks/old" }));
    desk.apply();
    assert_eq!(desk.api.subscriptions().len(), 3);
    let plan = desk.run(&["plan", "--prune"]);
    assert_eq!(actions(&plan), ["none", "delete"], "{plan:?}");
    assert_eq!(plan.json()[1]["id"], *stale);
    let ran = desk.run(&["apply", "--prune"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let left: Vec<Value> = desk.api.subscriptions().iter().map(|one| one["id"].clone()).collect();
    assert!(left.contains(&json!(elsewhere)) && !left.contains(&json!(stale)), "{left:?}");
}

#[test]
fn an_event_type_that_is_not_offered_changes_nothing() {
    let desk = AtBasiq::new();
    desk.declare(&["user.created", "user.creatde", "consnet.*"]);
    for command in ["plan", "apply"] {
        let said = error_of(&desk.run(&[command]));
        assert!(said.contains("user.creatde, consnet.*") && !said.contains("user.created"), "{said}");
    }
    assert_eq!(writes(&desk.api), []);
    assert!(!desk.secret_file().exists());
}

#[test]
fn a_domain_that_is_declared_no_more_goes() {
    let desk = AtSecuritize::new();
    desk.apply();
    assert_eq!(desk.ours().len(), 2);
    let text = fs::read_to_string(desk.home.path("hookgate.toml")).unwrap();
    desk.home.write("hookgate.toml", text.replace(DOMAIN, "d2f82d16-178c-48ea-95c0-f72227c6fef4"));
    let mut done = desk.apply();
    done.sort();
    assert_eq!(done, ["create", "create", "delete", "delete"]);
    desk.has_converged();
}

#[test]
fn a_webhook_that_waits_for_approval_is_as_declared() {
    let api = Basiq::start().approves_later();
    let home = Home::exactly(&config::<support::providers::basiq::Provider>(&api, URL, &["user.created"]));
    let desk = AtBasiq { home, api, url: URL.to_owned(), _gateway: None };
    desk.apply();
    assert_eq!(desk.run(&["plan", "--detailed-exitcode"]).code, 0);
    assert_eq!(desk.run(&["list"]).json()[0]["active"], false);
}

#[test]
fn a_list_of_many_pages_is_read_to_its_end_and_never_on_another_host() {
    let api = Basiq::start().pages_of_webhooks(1);
    let home = Home::exactly(&config::<support::providers::basiq::Provider>(&api, URL, &["user.created"]));
    let desk = AtBasiq { home, api, url: URL.to_owned(), _gateway: None };
    for number in 0..3 {
        desk.api.add(json!({ "url": format!("https://elsewhere.example.com/{number}") }));
    }
    desk.apply();
    assert_eq!(desk.run(&["list"]).json().len(), 4);
    desk.api.link_to("https://elsewhere.example.com");
    let said = error_of(&desk.run(&["list"]));
    assert!(said.contains("another host"), "{said}");
}

#[test]
fn a_token_that_ends_early_is_exchanged_and_a_long_wait_fails_at_once() {
    let desk = AtBasiq::new();
    desk.api.fail(1, "GET /notifications/webhooks", Fault::TokensEnd);
    desk.apply();
    desk.has_converged();
    desk.api.fail(1, "GET /notifications/webhooks", Fault::TooMany(Some("61".to_owned())));
    let said = error_of(&desk.run(&["list"]));
    assert!(said.contains("wait 61 s"), "{said}");
}

#[test]
fn a_path_token_stands_as_three_stars_in_every_url() {
    let api = Securitize::start();
    let text = config::<support::providers::securitize::Provider>(&api, URL, &["domain-investor-kyc-update"]);
    let text = text.replace(&format!("url = {URL:?}\n"), "");
    let text = text.replace("unauthenticated = true", "path_token = { file = \"token\" }");
    let home = Home::exactly(&text);
    home.write("token", "a-path-token-1f6b0d");
    let desk = AtSecuritize { home, api, url: format!("{URL}/a-path-token-1f6b0d"), _gateway: None };
    let plan = desk.run(&["plan"]);
    assert!(plan.out.contains("https://hooks.example.com/hooks/it/***"), "{plan:?}");
    desk.apply();
    assert_eq!(desk.ours().len(), 1, "the provider has the token");
    desk.has_converged();
    let listed = desk.run(&["list"]);
    assert!(listed.out.contains("/hooks/it/***"), "{listed:?}");
    for ran in
        [plan, listed, desk.home.run(&["subscriptions", "plan"]), desk.home.run(&["subscriptions", "list"])]
    {
        assert!(!ran.out.contains("1f6b0d") && !ran.err.contains("1f6b0d"), "{ran:?}");
    }
    let kept = fs::read_to_string(desk.home.path("data/subscriptions.json")).unwrap();
    assert!(!kept.contains("1f6b0d"), "{kept}");
}

#[test]
fn events_are_those_that_the_provider_offers_or_hookgate_knows() {
    let desk = AtBasiq::new();
    let kinds = |ran: &Ran| -> Vec<Value> { ran.json().iter().map(|line| line["type"].clone()).collect() };
    let offered = kinds(&desk.run(&["events"]));
    assert_eq!(offered, desk.api.offered());
    let desk = AtIof::new();
    assert!(kinds(&desk.run(&["events"])).contains(&json!("contract.created")));
    let desk = Desk::<support::providers::anduin::Provider>::new();
    let legacy = kinds(&desk.run(&["events"]));
    assert!(legacy.contains(&json!("documents_uploaded")) && legacy.len() == 5, "{legacy:?}");
}

#[test]
fn a_test_delivery_names_the_webhooks_that_it_reaches() {
    let desk = AtBasiq::new();
    let said = desk.run(&["test", "--source", "it"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("subscriptions apply"), "{said:?}");
    desk.apply();
    let ran = desk.run(&["test", "--source", "it", "--event", "user.created"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.json()[0]["webhooks"][0]["id"], desk.ours()[0]["id"]);
    let ran = AtIof::new().run(&["test", "--source", "it"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains("no call for a test delivery"), "{ran:?}");
}

#[test]
fn anduin_is_told_of_a_gateway_that_does_not_answer() {
    let desk = Desk::<support::providers::anduin::Provider>::new();
    let text = fs::read_to_string(desk.home.path("hookgate.toml")).unwrap();
    let nowhere = format!("http://127.0.0.1:{}/hooks/it", support::free_port());
    desk.home.write("hookgate.toml", text.replace(&desk.url, &nowhere));
    let said = error_of(&desk.run(&["apply"]));
    assert!(
        said.contains("the gateway does not answer the validation request at http://127.0.0.1"),
        "{said}"
    );
}

#[test]
fn two_commands_do_not_change_subscriptions_at_once() {
    let desk = AtBasiq::new();
    fs::create_dir_all(desk.home.path("data")).unwrap();
    let lock = fs::File::create(desk.home.path("data/subscriptions.lock")).unwrap();
    lock.lock().unwrap();
    let ran = desk.run(&["apply"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("another `hookgate subscriptions` command"), "{ran:?}");
}

#[test]
fn a_source_without_a_subscription_is_named() {
    let home = Home::exactly("[sources.it]\nprovider = \"basiq\"\nunauthenticated = true\n");
    for (arguments, what) in [
        (&["subscriptions", "plan"][..], "no source has a subscription"),
        (&["subscriptions", "plan", "--source", "it"], "no [sources.it.subscription]"),
        (&["subscriptions", "plan", "--source", "other"], "it has: it"),
    ] {
        let ran = home.run(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
        assert!(ran.err.contains(what), "{ran:?}");
    }
}

#[test]
#[should_panic(expected = "holds a secret")]
fn a_secret_that_is_printed_would_show() {
    let home = Home::exactly("");
    home.write("secret", support::STANDARD_SECRET);
    Ran::of(std::process::Command::new("cat").arg(home.path("secret")));
}
