"""Stripe: signed and verified by its own library."""

import importlib
import sys

# This file has the library's name.
sys.path.append(sys.path.pop(0))
stripe = importlib.import_module("stripe")

from expected import Provider, accepted, body_id, compact, event, rejected

NAME = "stripe"
SECRET = "whsec_made_up_endpoint_secret_0123456789"
OLD = "whsec_made_up_older_secret_0123456789"
AT = 1764500000
PAID = {
    "id": "evt_1SYmadeup0001",
    "object": "event",
    "api_version": "2026-10-28.test",
    "created": 1764499990,
    "data": {
        "object": {"id": "in_1SYmadeup0002", "object": "invoice", "customer": "cus_madeup3", "status": "paid"},
        "previous_attributes": {"status": "open"},
    },
    "livemode": False,
    "pending_webhooks": 1,
    "request": {"id": None, "idempotency_key": None},
    "type": "invoice.updated",
}
BODY = compact(PAID)


def sign(raw=BODY, secret=SECRET, at=AT):
    header = stripe.WebhookSignature.generate_signature_header(raw.decode(), secret, at)
    assert stripe.WebhookSignature.verify_header(raw.decode(), header, secret)
    return header


def only(header):
    return header.split(",")[1]


def headers(signature):
    named = {"accept": "*/*; q=0.5, application/xml", "content-type": "application/json; charset=utf-8"}
    return named | ({"stripe-signature": signature} if signature else {})


def made(kind, own_id, **entities):
    return event(NAME, kind, own_id, "hmac-sha256", **entities)


INVOICE = {
    "subject": ("invoice", "in_1SYmadeup0002"),
    "related": [("customer", "cus_madeup3")],
    "status": ("open", "paid"),
}
WHEN = {"time": "2025-11-30T10:53:10Z"}
UPDATED = made("invoice.updated", "evt_1SYmadeup0001", **INVOICE, **WHEN)
vectors = Provider(NAME, secrets=[SECRET])


def good(name, about, raw=BODY, expect=UPDATED, signature=None, now=AT, **source):
    vectors.add("accepted", name, about, headers(signature or sign(raw)), raw, accepted(expect), now=now, **source)


def bad(name, about, reason, signature=None, raw=BODY, now=AT, sent=None, **source):
    sent = sent or headers(sign() if signature is None else signature)
    vectors.add("rejected", name, about, sent, raw, rejected(reason), now=now, **source)


good("ok", "an invoice was paid")
CONNECT = compact(
    PAID
    | {
        "id": "evt_1SYmadeup0004",
        "account": "acct_madeup5",
        "type": "customer.created",
        "data": {"object": {"id": "cus_madeup3", "object": "customer", "email": "a@example.com"}},
    }
)
good(
    "connect",
    "an event of a connected account, about a customer",
    CONNECT,
    made(
        "customer.created",
        "evt_1SYmadeup0004",
        subject=("customer", "cus_madeup3"),
        tenant=("account", "acct_madeup5"),
        **WHEN,
    ),
)
THIN = compact(
    {
        "id": "evt_test_madeup6",
        "object": "v2.core.event",
        "type": "v2.core.account.updated",
        "livemode": False,
        "created": "2025-11-30T10:53:10.123Z",
        "related_object": {"id": "acct_madeup5", "type": "v2.core.account", "url": "/v2/core/accounts/acct_madeup5"},
    }
)
good(
    "thin",
    "an event of API v2: RFC 3339, and the entity in related_object",
    THIN,
    made(
        "v2.core.account.updated",
        "evt_test_madeup6",
        time="2025-11-30T10:53:10.123Z",
        related=[("v2.core.account", "acct_madeup5")],
    ),
)
good(
    "rolled", "a rolled secret: the header holds a signature for each", signature=sign(secret=OLD) + "," + only(sign())
)
good("rotation", "the second of two secrets", secrets=[OLD, SECRET])
good("v0", "a v0 entry beside the right one", signature=sign() + ",v0=" + "6" * 64)
good("order", "the time last, with blanks", signature=f"{only(sign())} , t = {AT}")
good("edge", "five minutes old", now=AT + 300)
UNTYPED = compact({"id": "evt_1SYmadeup0007", "created": 1764499990})
good("no-type", "a payload without type", UNTYPED, made(None, "evt_1SYmadeup0007", **WHEN))
NO_ID = compact({"type": "charge.failed", "created": 1764499990})
good(
    "no-id",
    "without id the type and the body identify it",
    NO_ID,
    made("charge.failed", body_id(NAME, "charge.failed", NO_ID), **WHEN),
)

bad("other-secret", "the secret of another endpoint", "signature_mismatch", secrets=[OLD])
bad(
    "secret-decoded",
    "the secret is no base64: a key without whsec_ is another",
    "signature_mismatch",
    secrets=[SECRET[6:]],
)
bad("changed", "one changed body byte", "signature_mismatch", raw=BODY.replace(b"paid", b"paiD"))
bad("changed-time", "another time than the signed one", "signature_mismatch", sign().replace(str(AT), str(AT + 1)))
bad("stale", "a second past the tolerance", "timestamp_outside_tolerance", now=AT + 301)
bad("early", "from the future", "timestamp_outside_tolerance", now=AT - 301)
bad("missing", "no signature header", "signature_missing", "")
bad("no-time", "a header without t", "signature_malformed", only(sign()))
bad("no-v1", "only a v0 entry", "signature_malformed", sign().replace("v1", "v0"))
bad("two-times", "two times: either could be the signed one", "signature_malformed", sign() + f",t={AT}")
bad("short", "63 hex digits", "signature_malformed", sign()[:-1])
bad("time-word", "a time that is no number", "signature_malformed", sign().replace(str(AT), "now"))
bad("key-case", "keys are exact", "signature_malformed", sign().replace("v1", "V1"))
vectors.write()
