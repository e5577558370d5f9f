"""Shopify: signed by Python's hmac, and verified by @shopify/shopify-api."""

import base64
import hmac

import npm
from expected import Provider, accepted, body_id, compact, event, rejected

NAME = "shopify"
SECRET = "made-up-client-secret-0123456789ab"
NOW = 1764500000
SHOP = "made-up.myshopify.example"
ORDER = compact(
    {
        "id": 820982911946154508,
        "admin_graphql_api_id": "gid://shopify/Order/820982911946154508",
        "created_at": "2025-11-30T05:53:10-05:00",
        "updated_at": "2025-11-30T05:53:20-05:00",
        "currency": "CAD",
        "total_price": "398.00",
        "customer": {"id": 115310627314723954, "first_name": "Zoë"},
    }
)


def sign(raw, secret=SECRET):
    return base64.b64encode(hmac.digest(secret.encode(), raw, "sha256")).decode()


def headers(signature, topic="orders/create", shop=SHOP):
    named = {
        "content-type": "application/json",
        "x-shopify-topic": topic,
        "x-shopify-hmac-sha256": signature,
        "x-shopify-shop-domain": shop,
        "x-shopify-api-version": "2026-10",
        "x-shopify-webhook-id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
        "x-shopify-event-id": "98880550-7158-44d4-b7cd-2c97c8a091b5",
        "x-shopify-triggered-at": "2025-11-30T10:53:21.123456789Z",
    }
    return {name: value for name, value in named.items() if value}


def holds(raw, sent):
    """Whether the library takes the delivery."""
    told = npm.call(
        'import "@shopify/shopify-api/adapters/web-api";\n'
        'import { shopifyApi } from "@shopify/shopify-api";\n'
        "const [apiSecretKey, rawBody, headers] = args;\n"
        'const api = shopifyApi({ apiKey: "key", apiSecretKey, apiVersion: "2026-10", hostName: "app.example.com",\n'
        "  isEmbeddedApp: false, logger: { level: 0 } });\n"
        'const rawRequest = new Request("https://app.example.com/", { method: "POST", headers, body: rawBody });\n'
        "give((await api.webhooks.validate({ rawBody, rawRequest })).valid);",
        SECRET,
        raw.decode(),
        sent,
    )
    return told


vectors = Provider(NAME, secrets=[SECRET])


def made(kind, raw, shop=SHOP, **entities):
    tenant = ("shop", shop) if shop else None
    return accepted(event(NAME, kind, body_id(NAME, kind, raw), "hmac-sha256", tenant=tenant, **entities))


def good(name, about, raw, expect, sent, **source):
    if not source and name not in ("no-topic",):
        assert holds(raw, sent), name
    vectors.add("accepted", name, about, sent, raw, expect, now=NOW, **source)


def bad(name, about, reason, sent, raw=ORDER, checked=True, **source):
    if checked and not source:
        assert not holds(raw, sent), name
    vectors.add("rejected", name, about, sent, raw, rejected(reason), now=NOW, **source)


CREATED = made(
    "orders/create",
    ORDER,
    subject=("resource", "820982911946154508"),
    time="2025-11-30T10:53:20Z",
    related=[("gid", "gid://shopify/Order/820982911946154508"), ("customer", "115310627314723954")],
)
good("ok", "an order; the number of its id is above 2^53", ORDER, CREATED, headers(sign(ORDER)))
DELETED = b'{"id":788032119674292922}'
good(
    "deleted",
    "a product was deleted: only its id is left",
    DELETED,
    made("products/delete", DELETED, subject=("resource", "788032119674292922")),
    headers(sign(DELETED), "products/delete"),
)
REDACT = compact(
    {
        "shop_id": 954889,
        "shop_domain": SHOP,
        "customer": {"id": 191167, "email": "a@example.com"},
        "orders_to_redact": [1],
    }
)
good(
    "redact",
    "a mandatory topic; it has no id of its own",
    REDACT,
    made("customers/redact", REDACT, related=[("customer", "191167")]),
    headers(sign(REDACT), "customers/redact"),
)
EVENTS = compact({"topic": "Product", "action": "update"})
of_events = {
    "content-type": "application/json",
    "shopify-topic": "Product",
    "shopify-action": "update",
    "shopify-hmac-sha256": sign(EVENTS),
    "shopify-shop-domain": SHOP,
    "shopify-api-version": "unstable",
    "shopify-webhook-id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
    "shopify-event-id": "98880550-7158-44d4-b7cd-2c97c8a091b5",
}
good("events", "a delivery of Events: the headers have no X-", EVENTS, made("Product.update", EVENTS, None), of_events)
good(
    "no-topic",
    "no topic header",
    ORDER,
    made(
        None,
        ORDER,
        subject=("resource", "820982911946154508"),
        time="2025-11-30T10:53:20Z",
        related=[("gid", "gid://shopify/Order/820982911946154508"), ("customer", "115310627314723954")],
    ),
    headers(sign(ORDER), None),
)
good(
    "rotation",
    "an hour after the secret was rotated, the old one may still sign",
    ORDER,
    CREATED,
    headers(sign(ORDER)),
    secrets=["made-up-newer-client-secret", SECRET],
)
good("unpadded", "base64 without padding", ORDER, CREATED, headers(sign(ORDER).rstrip("=")), secrets=[SECRET])

bad("other-secret", "the secret of another app", "signature_mismatch", headers(sign(ORDER, "made-up-other-secret")))
bad("changed", "one changed body byte", "signature_mismatch", headers(sign(ORDER)), ORDER.replace(b"398.00", b"398.01"))
bad(
    "reformatted",
    "a body that was parsed and written again",
    "signature_mismatch",
    headers(sign(ORDER)),
    ORDER.replace(b'":', b'": '),
)
bad("missing", "no signature header", "signature_missing", headers(None))
bad("malformed", "a signature that is no base64", "signature_malformed", headers("not base64!"))
bad("malformed-hex", "the digest as hex", "signature_malformed", headers(base64.b64decode(sign(ORDER)).hex()))
bad("malformed-short", "31 bytes", "signature_malformed", headers(base64.b64encode(bytes(31)).decode()))
twice = [*headers(sign(ORDER)).items(), ("x-shopify-hmac-sha256", sign(DELETED))]
bad("twice", "two signature headers", "signature_malformed", twice, checked=False)
vectors.write()
