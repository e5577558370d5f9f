//! Basiq's document.

use serde_json::{Value, json};
use support::providers::Basiq;
use support::{HttpService, Request, until};

use super::{ask, assert_error, documented, json_body};

#[tokio::test]
async fn each_documented_call_gets_the_documented_answer() {
    let (provider, endpoint) = (Basiq::start(), HttpService::start().await);
    let form = Request::post("/token", "scope=SERVER_ACCESS")
        .with("Authorization", format!("Basic {}", Basiq::KEY))
        .with("Content-Type", "application/x-www-form-urlencoded")
        .with("basiq-version", "3.0");
    let given = ask(provider.address(), &form).await;
    assert_eq!((given.status, &given.json()["expires_in"]), (200, &json!(3600)), "{given:?}");
    let token = given.json()["access_token"].as_str().unwrap().to_owned();
    let call = async |request: Request| {
        ask(provider.address(), &request.with("Authorization", format!("Bearer {token}"))).await
    };

    let types = call(Request::get("/events/types")).await.json();
    assert_eq!((&types["type"], &types["size"], &types["count"]), (&json!("list"), &json!(15), &json!(15)));
    assert_eq!(
        (&types["data"][0]["type"], &types["data"][0]["id"]),
        (&json!("eventType"), &json!("account.updated"))
    );

    // The document's example posts one event as a bare string, though it declares a list.
    let posted = json!({
        "name": "My General Webhook",
        "description": "Webhook to catch all events",
        "url": endpoint.url("/basiq-messages/"),
        "subscribedEvents": "user.created",
    });
    let created = call(json_body(Request::post("/notifications/webhooks", posted.to_string()))).await;
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let own = format!("/notifications/webhooks/{id}");
    let link = format!("{}{own}", provider.url());
    let mut webhook = json!({
        "type": "webhook",
        "id": id,
        "name": "My General Webhook",
        "description": "Webhook to catch all events",
        "url": endpoint.url("/basiq-messages/"),
        "status": "active",
        "secret": "rfiuheo43934",
        "subscribedEvents": ["user.created"],
        "links": { "self": link },
    });
    documented(&created, 201, webhook.clone(), &["/secret"]);
    let updated = call(json_body(Request::post(&own, posted.to_string()))).await;
    documented(&updated, 200, webhook.clone(), &["/secret"]);
    assert_eq!(updated.json()["secret"], created.json()["secret"]);
    webhook.as_object_mut().unwrap().remove("secret");
    documented(&call(Request::get(&own)).await, 200, webhook.clone(), &[]);
    let list = |data: Value, link: &str| json!({ "type": "list", "size": 1, "count": 1, "data": data, "links": { "self": link } });
    let all = list(json!([webhook]), &format!("{}/notifications/webhooks", provider.url()));
    documented(&call(Request::get("/notifications/webhooks")).await, 200, all, &[]);

    let test = json!({ "eventTypeId": "user.created", "Text": "My test message" });
    let tested = call(json_body(Request::post("/notifications/messages/test", test.to_string()))).await;
    assert_eq!(tested.status, 201, "{tested:?}");
    until("the test message is delivered", async || provider.is_settled()).await;

    let messages = call(Request::get(&format!("{own}/messages/"))).await;
    let payload = json!({
        "eventTypeId": "user.created",
        "eventId": "44a85f64-5717-4562-b3fc-2c963f66af44",
        "links": { "event": "https://au-api.basiq.io/events/44a8", "eventEntity": "https://au-api.basiq.io/users/88a8" },
        "Text": "My test message",
    });
    let delivery = provider.deliveries().pop().unwrap();
    let links = json!({ "self": format!("{link}/messages/{}", delivery.message), "webhook": link });
    let mut message = json!({ "id": delivery.message, "payload": payload, "links": links });
    let varying = ["/payload/eventId", "/payload/links/event", "/payload/links/eventEntity"];
    let in_list: Vec<String> = varying.iter().map(|pointer| format!("/data/0{pointer}")).collect();
    let in_list: Vec<&str> = in_list.iter().map(String::as_str).collect();
    documented(&messages, 200, list(json!([message]), &format!("{link}/messages")), &in_list);
    message["attempts"] = json!([{
        "id": "e2du423ed",
        "url": endpoint.url("/basiq-messages/"),
        "response": "",
        "responseStatusCode": 204,
        "timestamp": "2019-08-24T14:15:22Z",
        "status": "Success",
    }]);
    let one = call(Request::get(&format!("{own}/messages/{}", delivery.message))).await;
    documented(&one, 200, message, &[&varying[..], &["/attempts/0/id", "/attempts/0/timestamp"]].concat());

    let again = json!({ "url": endpoint.url("/basiq-messages/") });
    let again = call(json_body(Request::post("/notifications/webhooks", again.to_string()))).await;
    assert_error(&again, 409, "resource-already-exists");
    let same = json!({ "url": endpoint.url("/other"), "subscribedEvents": ["user.created"] });
    let same = call(json_body(Request::post("/notifications/webhooks", same.to_string()))).await;
    assert_error(&same, 400, "event-already-subscribed");
    assert_error(&call(Request::get("/notifications/webhooks/1")).await, 400, "path-parameter-not-valid");
    let deleted = call(Request::new("DELETE", &own)).await;
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    assert_error(&call(Request::get(&own)).await, 404, "resource-not-found");
}
