"""Linear. Python's hmac signs (its library only verifies), and @linear/sdk verifies."""

from book import JSON, Book, compact, hmac_sha256, identity, rejected
from npm import call

SECRET = "made-up_signing_secret_of_linear"
OTHER = "another_made-up_secret_of_linear"
NOW = 1796040000
BOOK = Book("linear", [SECRET], NOW, "hmac-sha256")
SIGNED = []
CHECK = """
import { LinearWebhookClient } from "@linear/sdk/webhooks";
const right = [];
for (const { body, secret, signature, now } of args[0]) {
    Date.now = () => now;
    right.push(new LinearWebhookClient(secret).verify(Buffer.from(body), signature));
}
give(right);
"""


def headers(raw, secret=SECRET, sent=None):
    """The headers of a delivery. `sent`: the library must take it at this time, in milliseconds."""
    signature = hmac_sha256(secret, raw).hex()
    if sent:
        SIGNED.append({"body": raw.decode(), "secret": secret, "signature": signature, "now": sent})
    return [JSON, ["Linear-Delivery", "234d1a4e-b617-4388-90fe-adc3633d6b72"], ["Linear-Event", "Issue"],
            ["Linear-Signature", signature]]


ORGANIZATION = "c1b2d3e4-5f60-4a1b-8c2d-3e4f5a6b7c8d"
ISSUE = "2174add1-f7c8-44e3-bbf3-2d60b5ea8bc9"
ACTOR = {"id": "b5ea5f1f-8adc-4f52-b4bd-ab4e84cf51ba", "type": "user", "name": "Ada"}
COMMON = {"createdAt": "2026-11-30T11:59:58.664Z", "organizationId": ORGANIZATION,
          "webhookTimestamp": NOW * 1000 - 1200, "webhookId": "000042e3-d123-4980-b49f-8e140eef9329"}
TENANT = ("organization", ORGANIZATION)
TIME = "2026-11-30T11:59:58.664Z"


def derived(kind, action, data=None, session=None, notification=None, issue=None, created=TIME):
    """An event's id."""
    return identity("linear", kind, action, created, data, session, notification, issue)


UPDATE = {
    "action": "update", "actor": ACTOR, "type": "Issue", **COMMON,
    "data": {"id": ISSUE, "title": "Größer", "identifier": "ENG-42", "stateId": "state-done", "teamId": "team-1",
             "projectId": "project-1", "state": {"id": "state-done", "name": "Done"}},
    "updatedFrom": {"updatedAt": "2026-11-29T10:00:00.000Z", "stateId": "state-started"},
    "url": "https://linear.app/example/issue/ENG-42",
}
update = compact(**UPDATE)
updated = BOOK.accepted(
    "linear.issue.update", "Issue.update", derived("Issue", "update", ISSUE), subject=("Issue", ISSUE), time=TIME,
    tenant=TENANT, status=("state-started", "state-done"),
    related=[("user", ACTOR["id"]), ("Team", "team-1"), ("Project", "project-1")],
)
SENT = COMMON["webhookTimestamp"]
BOOK.add("ok-issue-update", "an issue changed its state", headers(update, sent=SENT), update, updated)
BOOK.add("ok-second-secret", "the second secret of a source signed", headers(update, OTHER, sent=SENT), update, updated,
         secrets=[SECRET, OTHER])
upper = headers(update)
upper[-1][1] = upper[-1][1].upper()
BOOK.add("ok-upper-case", "hex in capitals", upper, update, updated)
comment = compact(action="create", actor=ACTOR, type="Comment", **COMMON,
                  data={"id": "comment-1", "body": "indeed", "issueId": ISSUE})
BOOK.add("ok-comment", "a comment on an issue", headers(comment, sent=SENT), comment, BOOK.accepted(
    "linear.comment.create", "Comment.create", derived("Comment", "create", "comment-1"),
    subject=("Comment", "comment-1"), time=TIME, tenant=TENANT,
    related=[("user", ACTOR["id"]), ("Issue", ISSUE)]))
session = compact(action="created", type="AgentSessionEvent", **COMMON, appUserId="app-1", oauthClientId="client-1",
                  agentSession={"id": "session-1", "issueId": ISSUE})
BOOK.add("ok-agent-session", "an event without `data`", headers(session, sent=SENT), session, BOOK.accepted(
    "linear.agentsessionevent.created", "AgentSessionEvent.created",
    derived("AgentSessionEvent", "created", session="session-1"), time=TIME, tenant=TENANT,
    related=[("AgentSession", "session-1"), ("Issue", ISSUE)]))
breached = compact(action="breached", type="IssueSLA", **COMMON, issueData={"id": ISSUE, "teamId": "team-1"})
BOOK.add("ok-sla", "an issue's deadline passed", headers(breached, sent=SENT), breached, BOOK.accepted(
    "linear.issuesla.breached", "IssueSLA.breached", derived("IssueSLA", "breached", issue=ISSUE), time=TIME,
    tenant=TENANT, related=[("Issue", ISSUE)]))
again = compact(**{**UPDATE, "webhookTimestamp": NOW * 1000 + 60_000})
BOOK.add("ok-sent-again", "the same event, sent a minute later, has the same id",
         headers(again, sent=NOW * 1000 + 60_000), again, updated)
nameless = compact(webhookTimestamp=SENT, createdAt=TIME, organizationId=ORGANIZATION)
BOOK.add("unnamed-event", "an event without type and action", headers(nameless, sent=SENT), nameless, BOOK.accepted(
    "unmapped.unnamed", None, identity("linear", None, None, TIME, None, None, None, None), time=TIME, tenant=TENANT))

BOOK.refuse(headers, update, OTHER, "Linear-Signature", {
    "short-digest": "ab" * 31, "no-hex": "zz" * 32, "a-prefix": "sha256=" + hmac_sha256(SECRET, update).hex()})
old = compact(**{**UPDATE, "webhookTimestamp": (NOW - 3600) * 1000})
BOOK.add("refused-stale", "sent an hour ago", headers(old), old, rejected("timestamp_outside_tolerance"))
ahead = compact(**{**UPDATE, "webhookTimestamp": (NOW + 3600) * 1000})
BOOK.add("refused-ahead", "sent an hour from now", headers(ahead), ahead, rejected("timestamp_outside_tolerance"))
timeless = compact(**{key: value for key, value in UPDATE.items() if key != "webhookTimestamp"})
BOOK.add("refused-no-timestamp", "a signed body without its time", headers(timeless), timeless,
         rejected("signature_missing"))
wordy = compact(**{**UPDATE, "webhookTimestamp": "yesterday"})
BOOK.add("refused-malformed-timestamp", "a time that is no number", headers(wordy), wordy,
         rejected("signature_malformed"))
BOOK.add("refused-stale-wrong-secret", "sent an hour ago, and another secret signed: the signature is first",
         headers(old, OTHER), old, rejected("signature_mismatch"))
assert all(call(CHECK, SIGNED))
BOOK.save()
