"""Calendly. stripe signs and verifies (the two schemes are the same but for the header's name)."""

from stripe import WebhookSignature

from book import JSON, Book, compact, hmac_sha256, identity, rejected, sha256

KEY = "made-up-signing-key-of-calendly-0123456789"
OTHER = "another-made-up-signing-key-of-calendly"
NOW = 1796040000
HEADER = "Calendly-Webhook-Signature"
BOOK = Book("calendly", [KEY], NOW, "hmac-sha256")


def signature(raw, key=KEY, at=NOW):
    """A digest, made by stripe."""
    return WebhookSignature._compute_signature(f"{at}.{raw.decode()}", key)


def with_header(value):
    """The headers of a delivery."""
    return [JSON, [HEADER, value]]


def headers(raw, key=KEY, at=NOW):
    """The headers of a signed delivery, verified by stripe."""
    value = f"t={at},v1={signature(raw, key, at)}"
    assert WebhookSignature.verify_header(raw.decode(), value, key)
    assert signature(raw, key, at) == hmac_sha256(key, f"{at}.".encode() + raw).hex()
    return with_header(value)


USER = "https://api.calendly.com/users/AAAAAAAAAAAAAAAA"
SCHEDULED = "https://api.calendly.com/scheduled_events/GBGBDCAADAEDCRZ2"
INVITEE = f"{SCHEDULED}/invitees/AAAAAAAAAAAAAAAB"


def booking(event, status, **more):
    """A body about an invitee."""
    return compact(event=event, created_at="2026-11-30T11:59:59.000000Z", created_by=USER, payload={
        "uri": INVITEE, "email": "ada@example.com", "name": "Ada Müller", "status": status, "event": SCHEDULED,
        "scheduled_event": {"uri": SCHEDULED, "status": "active"}, **more})


def booked(event, status, raw, *related):
    """The event of that body."""
    return BOOK.accepted(
        f"calendly.{event}", event, identity("calendly", event, sha256(raw)), subject=("resource", INVITEE),
        time="2026-11-30T11:59:59.000000Z", tenant=("owner", USER), status=(None, status),
        related=[("resource", SCHEDULED), *related])


created = booking("invitee.created", "active", old_invitee=None, new_invitee=None)
accepted = booked("invitee.created", "active", created)
BOOK.add("ok-created", "somebody booked", headers(created), created, accepted)
BOOK.add("ok-second-secret", "the second key of a source signed", headers(created, OTHER), created, accepted,
         secrets=[KEY, OTHER])
NEXT = "https://api.calendly.com/scheduled_events/NEXT/invitees/AAAAAAAAAAAAAAAC"
canceled = booking("invitee.canceled", "canceled", rescheduled=True, new_invitee=NEXT)
BOOK.add("ok-canceled", "a booking was moved: the new invitee is related", headers(canceled), canceled,
         booked("invitee.canceled", "canceled", canceled, ("resource", NEXT)))
SUBMISSION = "https://api.calendly.com/routing_form_submissions/AAAAAAAAAAAAAAAD"
FORM = "https://api.calendly.com/routing_forms/AAAAAAAAAAAAAAAE"
form = compact(event="routing_form_submission.created", created_at="2026-11-30T11:59:59.000000Z", created_by=USER,
               payload={"uri": SUBMISSION, "routing_form": FORM, "questions_and_answers": []})
BOOK.add("ok-form", "a routing form was sent", headers(form), form, BOOK.accepted(
    "calendly.routing_form_submission.created", "routing_form_submission.created",
    identity("calendly", "routing_form_submission.created", sha256(form)), subject=("resource", SUBMISSION),
    time="2026-11-30T11:59:59.000000Z", tenant=("owner", USER), related=[("resource", FORM)]))
good = signature(created)
BOOK.add("ok-other-order", "the signature before the timestamp", with_header(f"v1={good},t={NOW}"), created, accepted)
BOOK.add("ok-unknown-key", "a key to come is skipped", with_header(f"t={NOW},v2=abc,v1={good}"), created, accepted)
BOOK.add("ok-two-signatures", "the second signature is right", with_header(f"t={NOW},v1={'ab' * 32},v1={good}"),
         created, accepted)
nameless = compact(created_by=USER, payload={})
BOOK.add("unnamed-event", "an event without a type", headers(nameless), nameless, BOOK.accepted(
    "unmapped.unnamed", None, identity("calendly", None, sha256(nameless)), tenant=("owner", USER)))
BOOK.add("unreadable-text", "a body that is no JSON", headers(b"hello"), b"hello",
         BOOK.accepted("unmapped.unreadable", None, identity("calendly", sha256(b"hello"))))

BOOK.refuse(headers, created, OTHER, HEADER, {
    "no-timestamp": f"v1={good}", "two-timestamps": f"t={NOW},t={NOW},v1={good}", "no-digest": f"t={NOW}",
    "short-digest": f"t={NOW},v1=abcd", "a-word-as-time": f"t=now,v1={good}"})
BOOK.add("refused-stale", "signed an hour ago", headers(created, at=NOW - 3600), created,
         rejected("timestamp_outside_tolerance"))
BOOK.add("refused-changed-timestamp", "another timestamp", with_header(f"t={NOW - 1},v1={good}"), created,
         rejected("signature_mismatch"))
BOOK.add("refused-body-alone", "the body alone is signed", with_header(f"t={NOW},v1={hmac_sha256(KEY, created).hex()}"),
         created, rejected("signature_mismatch"))
BOOK.save()
