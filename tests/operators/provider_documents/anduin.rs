//! Anduin's document.

use serde_json::{Value, json};
use support::providers::Anduin;
use support::{HttpService, Reply, Request, until};

use super::{ask, documented, json_body};

#[tokio::test]
async fn each_documented_call_gets_the_documented_answer() {
    let (provider, endpoint) = (Anduin::start(), HttpService::start().await);
    let webhooks = format!("/api/v1/fundsub/{}/webhook", Anduin::FUND);
    let of_key = |request: Request| {
        request.with("authorization", format!("Bearer {}", Anduin::KEY)).with("accept", "application/json")
    };
    let wanted = json!({ "enabledEvents": ["new_investor_added"], "url": endpoint.url("/anduin") });
    let create = of_key(json_body(Request::post(&webhooks, wanted.to_string())));

    // The endpoint answers without the key: it is not created.
    assert_eq!(ask(provider.address(), &create).await.status, 400);
    endpoint.replies(|request| {
        let key = request.header("x-anduin-webhook-validation-key");
        Reply::With(200, "x-anduin-webhook-validation-key", key.to_owned())
    });
    let created = ask(provider.address(), &create).await;
    let endpoint_object = json!({
        "id": "txn0000000000000.fsb0000.wid000000",
        "url": endpoint.url("/anduin"),
        "isActive": true,
        "fundId": Anduin::FUND,
        "enabledEvents": ["new_investor_added"],
        "responseType": "",
    });
    documented(&created, 200, endpoint_object.clone(), &["/id", "/responseType"]);
    let validation = endpoint.posted().pop().unwrap();
    assert_eq!((&*validation.method, &*validation.path, &*validation.body), ("GET", "/anduin", ""));
    assert!(validation.header("x-anduin-webhook-validation-key").len() > 8, "{validation:?}");

    let own = format!("{webhooks}/{}", created.json()["id"].as_str().unwrap());
    let viewed = ask(provider.address(), &of_key(Request::get(&own))).await;
    documented(&viewed, 200, endpoint_object.clone(), &["/id", "/responseType"]);
    let listed = ask(provider.address(), &of_key(Request::get(&webhooks))).await;
    let list = json!({ "fundId": Anduin::FUND, "webhooks": [endpoint_object], "responseType": "" });
    documented(&listed, 200, list, &["/webhooks/0/id", "/webhooks/0/responseType", "/responseType"]);

    let wanted = json!({ "enabledEvents": ["documents_uploaded"], "url": endpoint.url("/later") });
    let update = of_key(json_body(Request::new("PUT", &own)));
    let update = Request { body: wanted.to_string().into(), ..update };
    let updated = ask(provider.address(), &update).await;
    assert_eq!((updated.status, &updated.json()["url"]), (200, &wanted["url"]), "{updated:?}");
    let asked: Vec<String> = endpoint.posted().into_iter().map(|request| request.path).collect();
    assert_eq!(asked, ["/anduin", "/anduin", "/later"]);

    let fields =
        json!({ "files": [{ "fileId": "1", "fileName": "a.pdf" }], "documentType": "LP_SIGNED_DOC" });
    provider.emit("documents_uploaded", fields);
    until("the event comes", async || endpoint.posted().len() == 4).await;
    let event = endpoint.posted().pop().unwrap().event();
    let mut names: Vec<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let fields =
        ["close", "contacts", "createdAt", "customId", "documentType", "event", "files", "fundId", "lpId"];
    assert_eq!(names, [&fields[..], &["medatada", "tags"]].concat());

    assert_eq!(ask(provider.address(), &of_key(Request::new("DELETE", &own))).await.status, 200);
    assert_eq!(provider.subscriptions(), [] as [Value; 0]);
}
