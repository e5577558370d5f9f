"""HubSpot: signed and verified by @hubspot/api-client."""

import re

import npm
from expected import ABSENT, Provider, accepted, compact, digest, event, listed, rejected, unreadable_id

NAME = "hubspot"
SECRET = "0f1e2d3c-made-up0-client0-secret000000"
AT = 1764500000123
NOW = 1764500000
CREATED = {
    "eventId": 3816279340,
    "subscriptionId": 25,
    "portalId": 33,
    "appId": 1160452,
    "occurredAt": 1764499990123,
    "subscriptionType": "contact.creation",
    "attemptNumber": 0,
    "objectId": 1246965,
    "changeFlag": "CREATED",
    "changeSource": "WEB_FORM",
}
CHANGED = CREATED | {
    "eventId": 3816279480,
    "subscriptionId": 22,
    "subscriptionType": "company.propertyChange",
    "objectId": 1246978,
    "propertyName": "name",
    "propertyValue": "Grüße",
}
BODY = b"[" + compact(CREATED) + b"," + compact(CHANGED) + b"]"
# The escapes that HubSpot's rule names, and what it signs for them.
ESCAPES = dict(zip("3A 2F 3F 40 21 24 27 28 29 2A 2C 3B".split(), ":/?@!$'()*,;"))


def decoded(url):
    return re.sub("%(" + "|".join(ESCAPES) + ")", lambda found: ESCAPES[found[1]], url)


def call(what, raw, url, secret, at, signature=""):
    return npm.call(
        'import client from "@hubspot/api-client";\n'
        "const [what, requestBody, url, clientSecret, timestamp, signature] = args;\n"
        "const { Signature } = client;\n"
        "Date.now = () => timestamp;\n"
        'const given = { signatureVersion: "v3", method: "POST", clientSecret, requestBody, url, timestamp, signature };\n'
        'give(what === "sign" ? Signature.getSignature("POST", "v3", given) : Signature.isValid(given));',
        what,
        raw.decode(),
        url,
        secret,
        at,
        signature,
    )


vectors = Provider(NAME, secrets=[SECRET])


def sign(name, raw=BODY, query="", secret=SECRET, at=AT, url=None):
    url = url or decoded(vectors.url(name, query))
    signature = call("sign", raw, url, secret, at)
    assert call("verify", raw, url, secret, at, signature)
    return signature


def headers(signature, at=AT):
    named = {
        "content-type": "application/json",
        "user-agent": "HubSpot Connect 2.0",
        "x-hubspot-signature-version": "v1",
    }
    named["x-hubspot-signature"] = "a" * 64
    named |= {"x-hubspot-request-timestamp": str(at)} if at is not None else {}
    return named | ({"x-hubspot-signature-v3": signature} if signature else {})


def made(element, **entities):
    text = lambda field: str(element[field]) if field in element else ABSENT
    fields = ("portalId", "subscriptionId", "subscriptionType", "eventId", "objectId", "occurredAt")
    own_id = digest(NAME, *(text(field) for field in fields))
    if "objectId" in element:
        entities["subject"] = ("object", text("objectId"))
    kind = element.get("subscriptionType")
    return event(
        NAME, kind, own_id, "hmac-sha256", tenant=("portal", "33"), time="2025-11-30T10:53:10.123Z", **entities
    )


BOTH = listed(made(CREATED), made(CHANGED))


def good(name, about, raw=BODY, expect=BOTH, query="", **source):
    sent = headers(sign(name, raw, query))
    vectors.add("accepted", name, about, sent, raw, expect, now=NOW, query=query, **source)


def bad(name, about, reason, signature=None, raw=BODY, now=NOW, at=AT, query="", **source):
    sent = headers(sign(name) if signature is None else signature, at)
    vectors.add("rejected", name, about, sent, raw, rejected(reason), now=now, query=query, **source)


def a_list(*elements):
    return b"[" + b",".join(compact(element) for element in elements) + b"]"


good("ok", "two events in one delivery")
good("one", "a list of one event", a_list(CREATED), listed(made(CREATED)))
LATER = CREATED | {"attemptNumber": 3}
assert made(LATER) == made(CREATED)
good("attempt", "a later attempt: the identity is that of the first one", a_list(LATER), listed(made(CREATED)))
ASSOCIATION = {k: v for k, v in CREATED.items() if k not in ("objectId", "changeFlag")} | {
    "subscriptionType": "contact.associationChange",
    "fromObjectId": 903,
    "toObjectId": 1015,
    "associationRemoved": False,
}
good(
    "association",
    "two objects and no subject",
    a_list(ASSOCIATION),
    listed(made(ASSOCIATION, related=[("object", "903"), ("object", "1015")])),
)
UNTYPED = {k: v for k, v in CREATED.items() if k != "subscriptionType"}
good("no-type", "an event without type", a_list(UNTYPED), listed(made(UNTYPED)))
good("query", "a URL with a query, without escapes", query="tenant=a1&x=")
good("escapes", "a URL with every escape that is decoded", query="u=" + "".join(f"%{code}" for code in ESCAPES))
good("escapes-once", "an escaped % stays: nothing is decoded twice", query="u=%253A%252F")
good("escapes-kept", "escapes that are not decoded", query="u=%20%25%26%2B%C3%BC%3D")
good("empty", "an empty list", b"[]", {"status": 200, "outcome": "ignored"})
SINGLE = compact(CREATED)
good(
    "no-list",
    "a body that is no list",
    SINGLE,
    accepted(event(NAME, None, unreadable_id(NAME, SINGLE), "hmac-sha256", type="unmapped.unreadable")),
)
NUMBER = event(NAME, None, unreadable_id(NAME, b"7"), "hmac-sha256", type="unmapped.unreadable")
good(
    "element-number",
    "an element that is no object, beside one that is",
    b"[7," + compact(CREATED) + b"]",
    listed(NUMBER, made(CREATED)),
)
good("rotation", "the second of two secrets", secrets=["made-up-newer-client-secret-00000", SECRET])

bad("other-secret", "the secret of another app", "signature_mismatch", secrets=["made-up-other-client-secret-00000"])
bad("changed", "one changed body byte", "signature_mismatch", raw=BODY.replace(b"1246965", b"1246966"))
bad("changed-time", "another time than the signed one", "signature_mismatch", at=AT + 1)
bad("changed-query", "another query than the signed one", "signature_mismatch", query="x=1")
bad(
    "other-url",
    "the URL of another receiver",
    "signature_mismatch",
    sign("other-url", url="https://elsewhere.example.com/hooks/hubspot-test"),
)
still = vectors.url("escapes-signed-raw", "u=%2F")
bad(
    "escapes-signed-raw",
    "signed over the escapes instead of what they stand for",
    "signature_mismatch",
    sign("escapes-signed-raw", url=still),
    query="u=%2F",
)
bad("stale", "a second past the tolerance", "timestamp_outside_tolerance", now=NOW + 302)
bad("missing", "no v3 header", "signature_missing", "")
bad("missing-time", "no timestamp header", "signature_missing", at=None)
bad("malformed", "a signature that is no base64", "signature_malformed", "not base64!")
bad("malformed-short", "31 bytes", "signature_malformed", "A" * 42 + "==")
bad("malformed-time", "a time that is no number", "signature_malformed", at="1764500000.123")
seconds = sign("time-seconds", at=AT // 1000)
bad("time-seconds", "a time in seconds is a time in 1970", "timestamp_outside_tolerance", seconds, at=AT // 1000)
vectors.write()
