"""Sentry. Python's hmac signs, and @hookflo/tern verifies."""

from book import Book, compact, hmac_sha256, identity, sha256
from tern import Checks

SECRET = "made-up-client-secret-of-sentry-0123456789"
OTHER = "another-made-up-client-secret-of-sentry"
NOW = 1796040000
HEADER = "Sentry-Hook-Signature"
BOOK = Book("sentry", [SECRET], NOW, "hmac-sha256")
CHECKS = Checks(algorithm="hmac-sha256", headerName="sentry-hook-signature", headerFormat="raw", payloadFormat="raw")


def headers(raw, secret=SECRET, resource="issue", at=NOW):
    """The headers of a delivery."""
    made = [["Content-Type", "application/json"], ["Request-ID", "5c1a27d2f0c44d1c9b7a3e2f1d0c9b8a"],
            ["Sentry-Hook-Resource", resource], ["Sentry-Hook-Timestamp", str(at)],
            [HEADER, hmac_sha256(secret, raw).hex()]]
    CHECKS.add(made, raw, secret, NOW)
    return made


INSTALLATION = "7a485448-a9e2-4c85-8a3c-4f44175783c9"
COMMON = {"installation": {"uuid": INSTALLATION}, "actor": {"type": "application", "id": "sentry", "name": "Sentry"}}
TENANT = ("installation", INSTALLATION)
SENTRY = ("application", "sentry")


def derived(kind, raw):
    """An event's id."""
    return identity("sentry", kind, sha256(raw))


ADA = {"type": "user", "id": 9001, "name": "Ada"}
resolved = compact(action="resolved", **{**COMMON, "actor": ADA}, data={"issue": {
    "id": "1170820242", "shortId": "FRONT-END-1", "title": "Größe ist undefined", "status": "resolved",
    "substatus": None, "project": {"id": "1", "slug": "front-end"}}})
issue = BOOK.accepted("sentry.issue.resolved", "issue.resolved", derived("issue.resolved", resolved),
                      subject=("issue", "1170820242"), tenant=TENANT, status=(None, "resolved"),
                      related=[("project", "1"), ("user", "9001")])
BOOK.add("ok-issue-resolved", "a user resolved an issue", headers(resolved), resolved, issue)
BOOK.add("ok-second-secret", "the second secret of a source signed", headers(resolved, OTHER), resolved, issue,
         secrets=[SECRET, OTHER])
BOOK.add("ok-old-timestamp", "the timestamp is not signed and not read", headers(resolved, at=NOW - 86400), resolved,
         issue)
alert = compact(action="triggered", **COMMON, data={"triggered_rule": "Too many", "event": {
    "event_id": "e4874d664c3540c1a32eab185f12c5ab", "issue_id": "1117540176",
    "datetime": "2026-11-30T11:59:00.000000Z"}})
BOOK.add("ok-event-alert", "an alert rule fired", headers(alert, resource="event_alert"), alert, BOOK.accepted(
    "sentry.event_alert.triggered", "event_alert.triggered", derived("event_alert.triggered", alert), tenant=TENANT,
    related=[("issue", "1117540176"), SENTRY]))
metric = compact(action="critical", **COMMON, data={"metric_alert": {"id": "4", "status": 20}, "web_url": "x"})
BOOK.add("ok-metric-alert", "a metric alert", headers(metric, resource="metric_alert"), metric, BOOK.accepted(
    "sentry.metric_alert.critical", "metric_alert.critical", derived("metric_alert.critical", metric), tenant=TENANT,
    related=[("metric_alert", "4"), SENTRY]))
comment = compact(action="created", **COMMON, data={
    "comment": "seen", "comment_id": 5, "issue_id": 3, "project_slug": "front-end",
    "timestamp": "2026-11-30T11:59:00.000000Z"})
BOOK.add("ok-comment", "a comment on an issue", headers(comment, resource="comment"), comment, BOOK.accepted(
    "sentry.comment.created", "comment.created", derived("comment.created", comment), tenant=TENANT,
    related=[("issue", "3"), ("comment", "5"), SENTRY]))
installed = compact(action="created", actor={"id": 1, "name": "Ada", "type": "user"},
                    data={"installation": {"uuid": INSTALLATION, "status": "pending"}},
                    installation={"uuid": INSTALLATION})
BOOK.add("ok-installation", "the integration was installed", headers(installed, resource="installation"), installed,
         BOOK.accepted("sentry.installation.created", "installation.created",
                       derived("installation.created", installed), tenant=TENANT, related=[("user", "1")]))
BOOK.add("ok-no-resource", "without the header of the resource the type is the action",
         [pair for pair in headers(resolved) if pair[0] != "Sentry-Hook-Resource"], resolved,
         BOOK.accepted("sentry.resolved", "resolved", derived("resolved", resolved), subject=("issue", "1170820242"),
                       tenant=TENANT, status=(None, "resolved"), related=[("project", "1"), ("user", "9001")]))
nameless = compact(installation={"uuid": INSTALLATION})
BOOK.add("unnamed-event", "neither resource nor action",
         [pair for pair in headers(nameless) if pair[0] != "Sentry-Hook-Resource"], nameless,
         BOOK.accepted("unmapped.unnamed", None, derived(None, nameless), tenant=TENANT))
BOOK.add("unreadable-list", "a body that is a list", headers(b"[1]"), b"[1]",
         BOOK.accepted("unmapped.unreadable", None, identity("sentry", sha256(b"[1]"))))

BOOK.refuse(headers, resolved, OTHER, HEADER, {"short-digest": "ab" * 31, "no-hex": "zz" * 32})
CHECKS.run()
BOOK.save()
