//! IOF's document.

use serde_json::{Value, json};
use support::providers::Iof;
use support::{HttpService, Reply, Request, until};

use super::{ask, documented, json_body};

#[tokio::test]
async fn each_documented_call_gets_the_documented_answer() {
    let (provider, endpoint) = (Iof::start(), HttpService::start().await);
    let call = async |request: Request| {
        ask(provider.address(), &request.with("Authorization", format!("Bearer {}", Iof::KEY))).await
    };

    let posted = json!({
        "url": endpoint.url("/webhooks"),
        "events": ["contract.*", "kyc.verified"],
        "secret": "WEBHOOK_SECRET_SHOWN_ONCE",
    });
    let created = call(json_body(Request::post("/v1/webhooks/endpoints", posted.to_string()))).await;
    let mut object = json!({
        "id": "we_abc",
        "url": endpoint.url("/webhooks"),
        "events": ["contract.*", "kyc.verified"],
        "secret": "WEBHOOK_SECRET_SHOWN_ONCE",
        "status": "active",
        "createdAt": "2024-01-15T10:30:00Z",
    });
    documented(&created, 201, object.clone(), &["/id", "/createdAt"]);
    object.as_object_mut().unwrap().remove("secret");
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let own = format!("/v1/webhooks/endpoints/{id}");
    documented(&call(Request::get(&own)).await, 200, object.clone(), &["/id", "/createdAt"]);

    let events = json!({ "events": ["contract.*", "kyc.*", "compliance.*"] });
    let update = json_body(Request::new("PATCH", &own));
    let updated = call(Request { body: events.to_string().into(), ..update }).await;
    object["events"] = events["events"].clone();
    documented(&updated, 200, object, &["/id", "/createdAt"]);

    endpoint.replies(|_| Reply::Status(500));
    let event = provider.emit("kyc.rejected", json!({}));
    until("the last attempt has failed", async || provider.is_settled()).await;
    let failed = format!("/v1/webhooks/events?endpointId={id}&status=failed&limit=50");
    let listed = call(Request::get(&failed)).await.json();
    assert_eq!((&listed["data"][0]["id"], &listed["data"][0]["status"]), (&json!(event), &json!("failed")));
    let pagination = json!({ "page": 1, "perPage": 50, "total": 1, "totalPages": 1, "hasMore": false });
    assert_eq!(listed["pagination"], pagination);

    endpoint.replies(|_| Reply::Status(200));
    let retried = call(Request::post(&format!("/v1/webhooks/events/{event}/retry"), "")).await;
    assert_eq!((retried.status, &retried.json()["status"]), (200, &json!("retrying")), "{retried:?}");
    until("the retry is delivered", async || provider.is_settled()).await;
    assert_eq!(call(Request::get(&failed)).await.json()["data"], json!([]));
    let delivered = failed.replace("status=failed", "status=delivered");
    assert_eq!(call(Request::get(&delivered)).await.json()["data"][0]["id"], json!(event));

    assert_eq!(call(Request::new("DELETE", &own)).await.status, 204);
    assert_eq!(provider.subscriptions(), [] as [Value; 0]);
}
