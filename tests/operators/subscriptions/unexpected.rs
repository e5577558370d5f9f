//! States and answers that no document shows: nothing that delivers is deleted, and no credential is shown.

use super::*;
use support::providers::Reply;

/// The ids that the provider has.
fn ids<P: Simulated>(api: &Simulator<P>) -> Vec<Value> {
    api.subscriptions().iter().map(|one| one["id"].clone()).collect()
}

#[test]
fn what_delivers_stays_until_its_replacement_is_there() {
    let desk = AtIof::new();
    desk.apply();
    let before = ids(&desk.api);
    fs::remove_file(desk.secret_file()).unwrap();
    desk.api.fail(3, "POST /v1/webhooks/endpoints", Fault::Status(500));
    let ran = desk.run(&["apply", "--recreate"]);
    let said: Vec<_> = ran.json().iter().map(|line| line["error"].is_string()).collect();
    assert_eq!((ran.code, said), (1, vec![true, true]), "{ran:?}");
    assert_eq!(ids(&desk.api), before, "the old one stays");
    let ran = desk.run(&["apply", "--recreate"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_ne!(ids(&desk.api), before);
    desk.has_converged();
}

#[test]
fn a_second_one_that_delivers_stays_until_the_kept_one_is_changed() {
    let desk = AtSecuritize::new();
    desk.apply();
    // Another client moved ours away, and made others in their place.
    for one in desk.api.subscriptions() {
        let id = one["id"].as_str().unwrap();
        desk.api.change(id, |one| one["payloadUrl"] = "https://hooks.example.com/hooks/old".into());
        desk.api.add(
            json!({ "payloadUrl": desk.url, "eventType": one["eventType"], "domainId": one["domainId"] }),
        );
    }
    desk.api.fail(6, "PATCH /v1/webhooks/subscriptions", Fault::Status(500));
    let ran = desk.run(&["apply"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(desk.ours().len(), 2, "those that deliver stay");
    let mut done = desk.apply();
    done.sort();
    assert_eq!(done, ["delete", "delete", "update", "update"]);
    desk.has_converged();
    assert_eq!(desk.api.subscriptions().len(), 2);
}

#[test]
fn an_event_type_of_another_webhook_is_given_back_first() {
    let desk = AtBasiq::new();
    desk.apply();
    let second = desk.api.add(json!({ "url": desk.url, "subscribedEvents": ["account.updated"] }));
    desk.declare(&["user.created", "consent.*", "account.updated"]);
    let plan = desk.run(&["plan"]);
    assert_eq!(actions(&plan), ["delete", "update"], "{plan:?}");
    assert_eq!(plan.json()[0]["id"], *second);
    desk.apply();
    desk.has_converged();
}

/// Two sources of Securitize on one account, `a` and `b`, both with a path token in a file.
fn two_sources(api: &Securitize) -> Home {
    let source = |name: &str| {
        format!(
            "[sources.{name}]\nprovider = \"securitize\"\npath_token = {{ file = \"{name}.token\" }}\n\
             [sources.{name}.subscription]\nevents = [\"domain-investor-kyc-update\"]\ndomains = [{DOMAIN:?}]\n\
             api = {{ base = {:?}, key = {:?} }}\n",
            api.url(),
            Securitize::KEY
        )
    };
    let text = format!("edge.public_url = \"https://hooks.example.com\"\n{}{}", source("a"), source("b"));
    let home = Home::exactly(&text);
    for name in ["a", "b"] {
        home.write(&format!("{name}.token"), format!("the-path-token-of-{name}"));
    }
    let ran = home.run(&["subscriptions", "apply", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(api.subscriptions().len(), 2);
    home
}

#[test]
fn nothing_is_pruned_while_the_url_of_a_source_is_not_known() {
    let api = Securitize::start();
    let home = two_sources(&api);
    fs::remove_file(home.path("b.token")).unwrap();
    let ran = home.run(&["subscriptions", "apply", "--source", "a", "--prune", "--json"]);
    assert!(error_of(&ran).contains("sources.b.path_token"), "{ran:?}");
    assert_eq!(api.subscriptions().len(), 2);
    assert_eq!(home.run(&["subscriptions", "apply", "--source", "a", "--json"]).code, 0);
    let listed = home.run(&["subscriptions", "list", "--source", "a", "--json"]);
    assert!(!listed.out.contains("the-path-token-of-b"), "{listed:?}");
    assert!(listed.out.contains("https://hooks.example.com/hooks/b/***"), "{listed:?}");
}

#[test]
fn what_another_source_keeps_is_not_pruned() {
    let api = Securitize::start();
    let home = two_sources(&api);
    let before = ids(&api);
    let text = fs::read_to_string(home.path("hookgate.toml")).unwrap();
    let moved = text.replace("[sources.b]\n", "[sources.b]\npath = \"/hooks/moved\"\n");
    home.write("hookgate.toml", moved);
    let ran = home.run(&["subscriptions", "apply", "--source", "a", "--prune", "--json"]);
    assert_eq!((ran.code, actions(&ran)), (0, vec!["none".to_owned()]), "{ran:?}");
    let ran = home.run(&["subscriptions", "apply", "--prune", "--json"]);
    assert_eq!((ran.code, actions(&ran)), (0, vec!["none".to_owned(), "update".to_owned()]), "{ran:?}");
    assert_eq!(ids(&api), before);
}

#[test]
fn a_path_token_that_was_replaced_is_hidden_too() {
    let api = Securitize::start();
    let home = two_sources(&api);
    home.write("a.token", "another-path-token");
    for command in ["plan", "list", "apply"] {
        let ran = home.run(&["subscriptions", command, "--json"]);
        assert!(ran.out.contains("https://hooks.example.com/hooks/a/***"), "{ran:?}");
        assert!(!ran.out.contains("path-token"), "{ran:?}");
    }
    assert!(
        api.subscriptions().iter().any(|one| one["payloadUrl"].to_string().contains("another-path-token"))
    );
}

#[test]
fn a_token_that_the_provider_gave_out_is_not_shown_when_it_repeats_it() {
    let desk = AtBasiq::new();
    desk.api.fail_when(|call| {
        let token = call.header("authorization")?.strip_prefix("Bearer ")?.to_owned();
        let said =
            json!({ "data": [{ "title": format!("no rights for {token} whsec_bmV2ZXIgc2VlbiBiZWZvcmU=") }] });
        Some(Fault::Answer(Reply::json(400, &said)))
    });
    let ran = desk.run(&["plan"]);
    assert!(error_of(&ran).contains("no rights for *** whsec_***"), "{ran:?}");
}

#[test]
fn an_item_of_another_kind_keeps_nothing_from_being_read() {
    let desk = AtSecuritize::new();
    desk.api.add(json!({ "payloadUrl": "https://elsewhere.example.com/", "eventType": "health-check" }));
    desk.api.add(json!({ "eventType": "health-check" }));
    desk.apply();
    desk.has_converged();
    let desk = AtBasiq::new();
    desk.api.add(json!({ "url": "https://elsewhere.example.com/1" }));
    let other = desk.api.add(json!({ "url": "https://elsewhere.example.com/2" }));
    desk.api.change(&other, |one| one["url"] = Value::Null);
    desk.apply();
    desk.has_converged();
}

#[test]
fn an_update_whose_answer_tells_nothing_is_done() {
    let desk = AtIof::new();
    desk.apply();
    desk.api.answer_updates_with_nothing();
    let id = desk.ours()[0]["id"].as_str().unwrap().to_owned();
    desk.api.change(&id, <support::providers::iof::Provider as Case>::disable);
    assert_eq!(desk.apply(), ["update"]);
    desk.has_converged();
}

#[test]
fn a_lost_create_is_settled_under_the_url_that_it_was_sent_with() {
    let api = Iof::start();
    let config = |path: &str| {
        format!(
            "edge.public_url = \"https://hooks.example.com\"\n[sources.it]\nprovider = \"iof\"\npath = {path:?}\n\
             path_token = {{ file = \"token\" }}\nsecrets = [{{ file = \"it.secret\" }}]\n[sources.it.subscription]\n\
             events = [\"kyc.verified\"]\nsecret_file = \"it.secret\"\napi = {{ base = {:?}, key = {:?} }}\n",
            api.url(),
            Iof::KEY
        )
    };
    let home = Home::exactly(&config("/hooks/it"));
    home.write("token", "a-path-token-1f6b0d");
    api.fail(3, "POST /v1/webhooks/endpoints", Fault::CutAfter);
    assert_eq!(home.run(&["subscriptions", "apply"]).code, 1);
    home.write("hookgate.toml", config("/hooks/moved"));
    let ran = home.run(&["subscriptions", "apply", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let [ours] = api.subscriptions().try_into().unwrap();
    assert_eq!(ours["url"], "https://hooks.example.com/hooks/moved/a-path-token-1f6b0d");
}
