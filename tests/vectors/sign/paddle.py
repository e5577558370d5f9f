"""Paddle. paddle-python-sdk signs and verifies, and @paddle/paddle-node-sdk verifies."""

from paddle_billing.Notifications.PaddleSignature import PaddleSignature
from paddle_billing.Notifications.Secret import Secret

from book import JSON, Book, compact, hmac_sha256, identity, rejected, sha256
from npm import call

SECRET = "pdl_ntfset_made_up_secret_0123456789"
OTHER = "pdl_ntfset_another_made_up_secret"
NOW = 1796040000
HEADER = "Paddle-Signature"
BOOK = Book("paddle", [SECRET], NOW, "hmac-sha256")
SIGNED = []
CHECK = """
import { Paddle } from "@paddle/paddle-node-sdk";
const Real = Date;
const right = [];
for (const { body, secret, value, now } of args[0]) {
    globalThis.Date = class extends Real {
        constructor(...of) {
            super(...(of.length ? of : [now * 1000]));
        }
    };
    right.push(await new Paddle("made up").webhooks.isSignatureValid(body, secret, value));
}
give(right);
"""


def signature(raw, secret=SECRET, at=NOW):
    """A digest, made by Paddle's library."""
    return PaddleSignature.calculate_hmac(secret, f"{at}:".encode() + raw).hexdigest()


def with_header(value):
    """The headers of a delivery."""
    return [JSON, [HEADER, value]]


def headers(raw, secret=SECRET, at=NOW):
    """The headers of a signed delivery, verified by both libraries."""
    value = f"ts={at};h1={signature(raw, secret, at)}"
    assert PaddleSignature().verify(value, raw.decode(), Secret(secret))
    SIGNED.append({"body": raw.decode(), "secret": secret, "value": value, "now": at})
    return with_header(value)


ID = "evt_01hv8x29kz0t586xy6zn1a62ny"
TIME = "2026-11-30T11:59:57.584219Z"


def notification(kind, data, ident=ID):
    """A body."""
    return compact(event_id=ident, event_type=kind, occurred_at=TIME, notification_id="ntf_01hv8x29nh54xgyvxt9dkwsfct",
                   data=data)


TRANSACTION = {"id": "txn_01hv8wptq8987qeep44cyrewp9", "status": "completed",
               "customer_id": "ctm_01hv6y1jedq4p1n0yqn5ba3ky4", "subscription_id": "sub_01hv8x29kz0t586xy6zn1a62nx",
               "currency_code": "EUR", "custom_data": {"note": "Größe"}}
completed = notification("transaction.completed", TRANSACTION)
paid = BOOK.accepted(
    "paddle.transaction.completed", "transaction.completed", ID, subject=("entity", TRANSACTION["id"]), time=TIME,
    status=(None, "completed"),
    related=[("entity", TRANSACTION["customer_id"]), ("entity", TRANSACTION["subscription_id"])])
BOOK.add("ok-transaction", "a transaction was completed", headers(completed), completed, paid)
BOOK.add("ok-second-secret", "the second secret of a source signed", headers(completed, OTHER), completed, paid,
         secrets=[SECRET, OTHER])
good, wrong = signature(completed), signature(completed, OTHER)
rotation = f"ts={NOW};h1={wrong};h1={good}"
assert PaddleSignature().verify(rotation, completed.decode(), Secret(SECRET))
BOOK.add("ok-rotation", "two signatures: the second is of the source's secret", with_header(rotation), completed, paid)
BOOK.add("ok-unknown-key", "a key to come is skipped", with_header(f"ts={NOW};h2=abc;h1={good}"), completed, paid)
subscription = notification("subscription.canceled", {
    "id": "sub_01hv8x29kz0t586xy6zn1a62nx", "status": "canceled", "customer_id": "ctm_01hv6y1jedq4p1n0yqn5ba3ky4"})
BOOK.add("ok-subscription", "a subscription was canceled", headers(subscription), subscription, BOOK.accepted(
    "paddle.subscription.canceled", "subscription.canceled", ID, subject=("entity", "sub_01hv8x29kz0t586xy6zn1a62nx"),
    time=TIME, status=(None, "canceled"), related=[("entity", "ctm_01hv6y1jedq4p1n0yqn5ba3ky4")]))
no_id = compact(event_type="transaction.paid", data={})
BOOK.add("ok-no-id", "an event without an id has one from its type and bytes", headers(no_id), no_id, BOOK.accepted(
    "paddle.transaction.paid", "transaction.paid", identity("paddle", "transaction.paid", sha256(no_id))))
nameless = compact(event_id=ID)
BOOK.add("unnamed-event", "an event without a type", headers(nameless), nameless,
         BOOK.accepted("unmapped.unnamed", None, ID))
BOOK.add("unreadable-text", "a body that is no JSON", headers(b"hello"), b"hello",
         BOOK.accepted("unmapped.unreadable", None, identity("paddle", sha256(b"hello"))))

BOOK.refuse(headers, completed, OTHER, HEADER, {
    "no-timestamp": f"h1={good}", "two-timestamps": f"ts={NOW};ts={NOW};h1={good}", "no-digest": f"ts={NOW}",
    "commas": f"ts={NOW},h1={good}", "short-digest": f"ts={NOW};h1=abcd",
    "a-word-as-time": f"ts=now;h1={good}"})
BOOK.add("refused-stale", "signed an hour ago", headers(completed, at=NOW - 3600), completed,
         rejected("timestamp_outside_tolerance"))
BOOK.add("refused-changed-timestamp", "another timestamp", with_header(f"ts={NOW - 1};h1={good}"), completed,
         rejected("signature_mismatch"))
BOOK.add("refused-dot", "a dot instead of the colon is signed",
         with_header(f"ts={NOW};h1={hmac_sha256(SECRET, f'{NOW}.'.encode() + completed).hex()}"), completed,
         rejected("signature_mismatch"))
assert all(call(CHECK, SIGNED))
BOOK.save()
