//! Atelio's document.

use serde_json::{Value, json};
use support::providers::Atelio;

use super::{ask, curl, documented};

#[tokio::test]
async fn each_documented_call_gets_the_documented_answer() {
    let provider = Atelio::start();
    let call = async |command: &str| {
        let command = command.replace("<YOUR_AUTHORIZATION>", Atelio::AUTHORIZATION);
        ask(provider.address(), &curl(&command.replace("<YOUR_IDENTITY>", Atelio::IDENTITY))).await
    };

    let created = call(
        "curl --request POST \\
        --url https://sandbox.atelio.com/api/v0.1/webhooks \\
        --header 'Accept: application/json' \\
        --header 'Authorization: <YOUR_AUTHORIZATION>' \\
        --header 'Content-Type: application/json' \\
        --header 'Identity: <YOUR_IDENTITY>' \\
        --data '
        {
        \"events\": [
        \"card.created\",
        \"kyc.verification.success\",
        \"kyc.verification.failure\",
        \"kyc.verification.error\",
        \"kyc.verification.timeout\"
        ],
        \"url\": \"https://hostname.com/webhook/route\",
        \"description\": \"KYC state changes.\",
        \"version\": \"0.1\",
        \"status\": \"STATUS_ENABLED\"
        }
        '",
    )
    .await;
    let mut subscription = json!({
        "id": "487a7f29-7b80-467d-b20d-7b60c3a14cf0",
        "url": "https://hostname.com/webhook/route",
        "description": "KYC state changes.",
        "events": [
            "card.created",
            "kyc.verification.success",
            "kyc.verification.failure",
            "kyc.verification.error",
            "kyc.verification.timeout",
        ],
        "version": "0.1",
        "secret": "whsec_ira5jceuzhxxBxoWckAU0hLFQe79bSMZ",
        "status": "STATUS_ENABLED",
        "created_time": "2022-06-09T18:23:37.585421Z",
        "updated_time": "2022-06-09T18:23:37.585421Z",
    });
    let within = |object: &Value| json!({ "webhook_subscription": object });
    let given = ["id", "secret", "created_time", "updated_time"];
    let given = given.map(|name| format!("/webhook_subscription/{name}"));
    documented(&created, 200, within(&subscription), &given.each_ref().map(String::as_str));

    provider.remove(created.json()["webhook_subscription"]["id"].as_str().unwrap());
    provider.add(subscription.clone());
    let of_id = |command: &str| command.replace("{id}", "487a7f29-7b80-467d-b20d-7b60c3a14cf0");
    let updated = call(&of_id(
        "curl --request PATCH \\
        --url https://sandbox.atelio.com/api/v0.1/webhooks/{id} \\
        --header 'Authorization: <YOUR_AUTHORIZATION>' \\
        --header 'Content-Type: application/json' \\
        --header 'Identity: <YOUR_IDENTITY>' \\
        --data '
        {
        \"events\": [
        \"account.history.ready\"
        ]
        }
        '",
    ))
    .await;
    subscription["events"] = json!(["account.history.ready"]);
    documented(&updated, 200, within(&subscription), &["/webhook_subscription/updated_time"]);

    let listed = call(
        "curl --request GET \\
        --url https://sandbox.atelio.com/api/v0.1/webhooks \\
        --header 'Authorization: <YOUR_AUTHORIZATION>' \\
        --header 'Identity: <YOUR_IDENTITY>'",
    )
    .await;
    let mut in_list = subscription.clone();
    in_list["status"] = "enabled".into();
    let list = json!({ "webhook_subscriptions": [in_list] });
    documented(&listed, 200, list, &["/webhook_subscriptions/0/updated_time"]);

    let deleted = call(&of_id(
        "curl --request DELETE \\
        --url https://sandbox.atelio.com/api/v0.1/webhooks/{id} \\
        --header 'Authorization: <YOUR_AUTHORIZATION>' \\
        --header 'Identity: <YOUR_IDENTITY>'",
    ))
    .await;
    documented(&deleted, 200, within(&subscription), &["/webhook_subscription/updated_time"]);
    assert_eq!(provider.subscriptions(), [] as [Value; 0]);
}
