//! Securitize's document.

use serde_json::{Value, json};
use support::providers::Securitize;
use support::{HttpService, until};

use super::{ask, curl, documented};

#[tokio::test]
async fn each_documented_call_gets_the_documented_answer() {
    let (provider, endpoint) = (Securitize::start(), HttpService::start().await);
    let payload_url = endpoint.url("/your-custom-url");
    let domain = "c2f82d16-178c-48ea-95c0-f72227c6fef4";
    let call = async |command: &str| {
        let command = command.replace("{apiKey}", Securitize::KEY).replace("{domainId}", domain);
        ask(provider.address(), &curl(&command.replace("{payloadUrl}", &payload_url))).await
    };

    let events = call(
        "curl --location --request GET 'https://public-api.{environment}.securitize.io/v1/webhooks/events' \\
        --header 'accept: application/json' \\
        --header 'Authorization: apiKey {apiKey}'",
    )
    .await;
    let types = json!([
        { "eventType": "health-check", "properties": ["externalId"] },
        { "eventType": "domain-investor-kyc-update", "properties": ["domainId", "externalId"] },
        {
            "eventType": "domain-investor-subscription-agreement-update",
            "properties": ["domainId", "tokenId", "roundId", "externalId"],
        },
    ]);
    documented(&events, 200, types, &[]);

    let created = call(
        "curl --location --request POST 'https://public-api.{environment}.securitize.io/v1/webhooks/subscriptions' \\
        --header 'accept: application/json' \\
        --header 'Content-Type: application/json' \\
        --header 'Authorization: apiKey {apiKey}' \\
        --data-raw '{
          \"domainId\": \"{domainId}\",
          \"eventType\": \"domain-investor-kyc-update\",
          \"payloadUrl\": \"{payloadUrl}\",
          \"isActive\": true
        }'",
    )
    .await;
    let subscription = json!({
        "id": "6151edc0a46434001930z2e1",
        "domainId": domain,
        "eventType": "domain-investor-kyc-update",
        "nonce": 0,
        "payloadUrl": payload_url,
        "isActive": true,
    });
    documented(&created, 201, subscription.clone(), &["/id"]);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let of_id = |command: &str| command.replace("{subscriptionId}", &id);

    let listed = call(
        "curl --location --request GET \
        'https://public-api.{environment}.securitize.io/v1/webhooks/subscriptions?domainId={domainId}' \\
        --header 'accept: application/json' \\
        --header 'Authorization: apiKey {apiKey}'",
    )
    .await;
    documented(&listed, 200, json!([subscription]), &["/0/id"]);
    let viewed = call(&of_id(
        "curl --location --request GET \
        'https://public-api.{environment}.securitize.io/v1/webhooks/subscriptions/{subscriptionId}' \\
        --header 'accept: application/json' \\
        --header 'Authorization: apiKey {apiKey}'",
    ))
    .await;
    documented(&viewed, 200, subscription.clone(), &["/id"]);

    provider.emit("domain-investor-kyc-update", json!({ "domainId": domain }));
    until("the notification comes", async || endpoint.posted().len() == 1).await;
    let notification = json!({
        "domainId": domain,
        "externalId": "5298922124",
        "eventType": "domain-investor-kyc-update",
        "subscriptionId": id,
        "nonce": 1,
    });
    assert_eq!((endpoint.posted()[0].method.as_str(), endpoint.posted()[0].event()), ("POST", notification));

    let updated = call(&of_id(
        "curl --location --request PATCH \
        'https://public-api.{environment}.securitize.io/v1/webhooks/subscriptions/{subscriptionId}' \\
        --header 'accept: application/json' \\
        --header 'Content-Type: application/json' \\
        --header 'Authorization: apiKey {apiKey}' \\
        --data-raw '{
          \"payloadUrl\": \"{payloadUrl}\",
          \"isActive\": false
        }'",
    ))
    .await;
    assert_eq!((updated.status, &updated.json()["isActive"]), (200, &json!(false)), "{updated:?}");
    let deleted = call(&of_id(
        "curl --location --request DELETE \
        'https://public-api.{environment}.securitize.io/v1/webhooks/subscriptions/{subscriptionId}' \\
        --header 'accept: */*' \\
        --header 'Authorization: apiKey {apiKey}'",
    ))
    .await;
    assert_eq!((deleted.status, deleted.body.as_str()), (200, ""));
    assert_eq!(provider.subscriptions(), [] as [Value; 0]);
}
