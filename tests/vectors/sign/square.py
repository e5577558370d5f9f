"""Square. Python's hmac signs (its library only verifies), and squareup verifies."""

import base64
import hmac
import importlib
import json
import sys

# This file has the library's name.
sys.path.append(sys.path.pop(0))
verify_signature = importlib.import_module("square.utils.webhooks_helper").verify_signature

from book import JSON, Book, identity, rejected, sha256

KEY = "made-up-signature-key-of-square"
OTHER = "another-made-up-key-of-square"
HEADER = "x-square-hmacsha256-signature"
BOOK = Book("square", [KEY], 1796040000, "hmac-sha256")


def signature(url, raw, key=KEY):
    """What Square would send for a notification URL, checked by its library."""
    made = base64.b64encode(hmac.digest(key.encode(), url.encode() + raw, "sha256")).decode()
    text = raw.decode()
    assert not url or verify_signature(
        request_body=text, signature_header=made, signature_key=key, notification_url=url
    )
    return made


def add(name, about, raw, expect, *, query="", key=KEY, sent=None, url=None, **source):
    """A vector whose URL Square signed; `sent` is the body that arrives, `url` another signed URL."""
    made = signature(BOOK.url(name, query) if url is None else url, raw, key)
    BOOK.add(name, about, [JSON, [HEADER, made]], raw if sent is None else sent, expect, query=query, **source)


def raw(**fields):
    """A body."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


PAYMENT = {
    "merchant_id": "6SSW7HV8K2ST5", "location_id": "S8GWD5R9QB376", "type": "payment.updated",
    "event_id": "6a8f5f28-54a1-4eb0-a98a-3111513fd4fc", "created_at": "2026-11-30T11:59:54.308Z",
    "data": {"type": "payment", "id": "hYy9pRFVxpDsO1FB05SunFWUe9JZY", "object": {"payment": {
        "id": "hYy9pRFVxpDsO1FB05SunFWUe9JZY", "status": "COMPLETED", "order_id": "03O3USaPaAaFnI6kkwB1JxGgBsUZY",
        "customer_id": "RPRANDHZ9RV4B77TPNGF5D5WDR", "note": "Café"}}},
}
paid = BOOK.accepted(
    "square.payment.updated", "payment.updated", "6a8f5f28-54a1-4eb0-a98a-3111513fd4fc",
    subject=("payment", "hYy9pRFVxpDsO1FB05SunFWUe9JZY"), time="2026-11-30T11:59:54.308Z",
    tenant=("merchant", "6SSW7HV8K2ST5"), status=(None, "COMPLETED"),
    related=[("location", "S8GWD5R9QB376"), ("order", "03O3USaPaAaFnI6kkwB1JxGgBsUZY"),
             ("customer", "RPRANDHZ9RV4B77TPNGF5D5WDR")],
)
payment = raw(**PAYMENT)
add("ok-payment", "a payment was completed", payment, paid)
add("ok-query", "the notification URL has a query, as it was sent", payment, paid, query="shop=1&note=a%20b+c")
add("ok-second-secret", "the second key of a source signed", payment, paid, key=OTHER, secrets=[KEY, OTHER])
customer = raw(merchant_id="6SSW7HV8K2ST5", type="customer.created", event_id="bb4b5e6a-0d3a-4a0f-a2f9-7c2e8a1b9c10",
               created_at="2026-11-30T11:59:50Z",
               data={"type": "customer", "id": "CSKR25G0EQKXVTP4E1BWJHCKWM", "object": {"customer": {}}})
add("ok-customer", "an event about another kind of entity", customer, BOOK.accepted(
    "square.customer.created", "customer.created", "bb4b5e6a-0d3a-4a0f-a2f9-7c2e8a1b9c10",
    subject=("customer", "CSKR25G0EQKXVTP4E1BWJHCKWM"), time="2026-11-30T11:59:50Z",
    tenant=("merchant", "6SSW7HV8K2ST5")))
revoked = raw(merchant_id="6SSW7HV8K2ST5", type="oauth.authorization.revoked",
              event_id="f2c5b2a1-1f0e-4e0e-9d43-6d6f8a0c7b11", created_at="2026-11-30T11:59:50Z",
              data={"type": "revocation", "object": {"revocation": {"revoker_type": "MERCHANT"}}})
add("ok-no-subject", "an event that names no entity", revoked, BOOK.accepted(
    "square.oauth.authorization.revoked", "oauth.authorization.revoked", "f2c5b2a1-1f0e-4e0e-9d43-6d6f8a0c7b11",
    time="2026-11-30T11:59:50Z", tenant=("merchant", "6SSW7HV8K2ST5")))

nameless = raw(merchant_id="6SSW7HV8K2ST5", event_id="0e1d7a56-9b2f-4c86-8d60-3f1a2b4c5d6e")
add("unnamed-event", "an event without a type", nameless, BOOK.accepted(
    "unmapped.unnamed", None, "0e1d7a56-9b2f-4c86-8d60-3f1a2b4c5d6e", tenant=("merchant", "6SSW7HV8K2ST5")))
no_id = raw(merchant_id="6SSW7HV8K2ST5", type="payment.created")
add("ok-no-id", "an event without an id has one from its type and bytes", no_id, BOOK.accepted(
    "square.payment.created", "payment.created", identity("square", "payment.created", sha256(no_id)),
    tenant=("merchant", "6SSW7HV8K2ST5")))
add("unreadable-text", "a body that is no JSON", b"hello", BOOK.accepted(
    "unmapped.unreadable", None, identity("square", sha256(b"hello"))))

add("refused-wrong-secret", "another key signed", payment, rejected("signature_mismatch"), key=OTHER)
add("refused-changed-body", "one byte changed", payment, rejected("signature_mismatch"),
    sent=payment.replace(b"COMPLETED", b"COMPLETEd"))
add("refused-other-url", "signed for the URL of another source", payment, rejected("signature_mismatch"),
    url="https://hooks.example.com/hooks/square-other")
add("refused-http-url", "signed for the URL with another scheme", payment, rejected("signature_mismatch"),
    url=BOOK.url("refused-http-url").replace("https:", "http:"))
add("refused-changed-query", "signed for the URL with another query", payment, rejected("signature_mismatch"),
    query="shop=2", url=BOOK.url("refused-changed-query", "shop=1"))
add("refused-body-alone", "the body alone is signed", payment, rejected("signature_mismatch"), url="")
BOOK.add("refused-no-signature", "no signature", [JSON], payment, rejected("signature_missing"))
BOOK.add("refused-old-signature", "the retired header alone", [JSON, [
    "x-square-signature", base64.b64encode(hmac.digest(
        KEY.encode(), BOOK.url("refused-old-signature").encode() + payment, "sha1")).decode()]],
    payment, rejected("signature_missing"))
BOOK.add("refused-malformed", "a signature that is no base64", [JSON, [HEADER, "%%%"]], payment,
         rejected("signature_malformed"))
BOOK.add("refused-hex", "the right digest as hex", [JSON, [HEADER, hmac.digest(
    KEY.encode(), BOOK.url("refused-hex").encode() + payment, "sha256").hex()]], payment,
    rejected("signature_malformed"))
BOOK.save()
