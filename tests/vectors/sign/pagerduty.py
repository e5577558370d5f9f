"""PagerDuty. Python's hmac signs, and @hookflo/tern verifies."""

from book import JSON, Book, compact, hmac_sha256, identity, rejected, sha256
from tern import Checks

SECRET = "made-up-secret-of-pagerduty-0123456789abcdef"
OTHER = "another-made-up-secret-of-pagerduty"
NOW = 1796040000
HEADER = "X-PagerDuty-Signature"
BOOK = Book("pagerduty", [SECRET], NOW, "hmac-sha256")
CHECKS = Checks(algorithm="hmac-sha256", headerName="x-pagerduty-signature", headerFormat="prefixed", prefix="v1=",
                payloadFormat="raw")


def signature(raw, secret=SECRET):
    """One signature."""
    return "v1=" + hmac_sha256(secret, raw).hex()


def headers(raw, secret=SECRET):
    """The headers of a delivery."""
    made = [JSON, ["X-Webhook-Id", "f3e2a1b0-9c8d-4e7f-a6b5-c4d3e2f1a0b9"], [HEADER, signature(raw, secret)]]
    CHECKS.add(made, raw, secret, NOW)
    return made


def event(kind, data, *, ident="5ac64822-4adc-4fda-ade0-410becf0de4f", resource="incident", agent=True):
    """A body."""
    agent = {"id": "PLH1HKV", "summary": "Ingeniør", "type": "user_reference"} if agent else None
    return compact(event={"id": ident, "event_type": kind, "resource_type": resource,
                          "occurred_at": "2026-11-30T11:59:52.169Z", "agent": agent, "client": None, "data": data})


ID = "5ac64822-4adc-4fda-ade0-410becf0de4f"
TIME = "2026-11-30T11:59:52.169Z"
AGENT = ("user_reference", "PLH1HKV")
INCIDENT = {"id": "PGR0VU2", "type": "incident_reference"}
triggered = event("incident.triggered", {
    "id": "PGR0VU2", "type": "incident", "number": 2, "status": "triggered", "title": "A little bump in the road",
    "service": {"id": "PF9KMXH", "type": "service_reference"}})
incident = BOOK.accepted("pagerduty.incident.triggered", "incident.triggered", ID, subject=("incident", "PGR0VU2"),
                         time=TIME, status=(None, "triggered"), related=[("service", "PF9KMXH"), AGENT])
BOOK.add("ok-incident", "an incident was triggered", headers(triggered), triggered, incident)
BOOK.add("ok-second-secret", "the second secret of a source signed", headers(triggered, OTHER), triggered, incident,
         secrets=[SECRET, OTHER])


def several(*values):
    """Headers with this list of signatures."""
    return [JSON, [HEADER, ",".join(values)]]


BOOK.add("ok-rotation", "two signatures: the second is of the source's secret",
         several(signature(triggered, OTHER), signature(triggered)), triggered, incident)
BOOK.add("ok-rotation-first", "two signatures: the first is of the source's secret",
         several(signature(triggered), signature(triggered, OTHER)), triggered, incident)
BOOK.add("ok-unknown-version", "a signature of a version to come is skipped", several("v2=abc", signature(triggered)),
         triggered, incident)
BOOK.add("ok-broken-entry", "a broken signature beside a good one", several("v1=abc", signature(triggered)), triggered,
         incident)
note = event("incident.annotated", {"incident": INCIDENT, "id": "P2LA89X", "content": "glad", "type": "incident_note"})
BOOK.add("ok-note", "a note on an incident", headers(note), note, BOOK.accepted(
    "pagerduty.incident.annotated", "incident.annotated", ID, subject=("incident_note", "P2LA89X"), time=TIME,
    related=[("incident", "PGR0VU2"), AGENT]))
responder = event("incident.responder.added", {
    "incident": INCIDENT, "user": {"id": "PVMGSML", "type": "user_reference"}, "state": "pending",
    "type": "incident_responder"})
BOOK.add("ok-responder", "a responder has no id", headers(responder), responder, BOOK.accepted(
    "pagerduty.incident.responder.added", "incident.responder.added", ID, time=TIME,
    related=[("incident", "PGR0VU2"), ("user", "PVMGSML"), AGENT]))
service = event("service.updated", {"id": "PF9KMXH", "type": "service", "summary": "API"}, agent=False,
                resource="service", ident="01BRB6ZP4M6T8ZG4X6BP63ZB9O")
BOOK.add("ok-service", "a service was updated, by nobody", headers(service), service, BOOK.accepted(
    "pagerduty.service.updated", "service.updated", "01BRB6ZP4M6T8ZG4X6BP63ZB9O", subject=("service", "PF9KMXH"),
    time=TIME))
ping = event("pagey.ping", {"message": "Hello from your friend Pagey!", "type": "ping"}, agent=False, resource="pagey")
BOOK.add("ok-ping", "a test from PagerDuty", headers(ping), ping, BOOK.accepted(
    "pagerduty.pagey.ping", "pagey.ping", ID, time=TIME))
nameless = compact(event={"id": ID})
BOOK.add("unnamed-event", "an event without a type", headers(nameless), nameless,
         BOOK.accepted("unmapped.unnamed", None, ID))
old = compact(messages=[{"event": "incident.trigger"}])
BOOK.add("unnamed-v2", "a delivery of the retired V2 has neither type nor id here", headers(old), old,
         BOOK.accepted("unmapped.unnamed", None, identity("pagerduty", None, sha256(old))))

BOOK.refuse(headers, triggered, OTHER, HEADER, {
    "no-version": signature(triggered)[3:], "unknown-version-alone": "v2" + signature(triggered)[2:],
    "short-digest": "v1=abcd", "commas": ",,"})
BOOK.add("refused-two-wrong", "two signatures of other secrets",
         several(signature(triggered, OTHER), signature(triggered, OTHER + "x")), triggered,
         rejected("signature_mismatch"))
CHECKS.run()
BOOK.save()
