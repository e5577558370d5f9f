"""Microsoft Graph. Nothing is signed: the subscription's clientState is in every notification."""

import json
from urllib.parse import parse_qs

from book import JSON, Book, identity, rejected, sha256

STATE = "made-up client state for microsoft-graph"
BOOK = Book("microsoft-graph", [STATE], 1796040000, "shared-secret")
TENANT = "84bd8158-6d4d-4958-8b9f-9d6445542f95"
SUBSCRIPTION = "7f105c7d-2dc5-4530-97cd-4e7ae6534c07"
RELATED = [("subscription", SUBSCRIPTION)]


def element(state=STATE, **fields):
    """A notification's bytes."""
    fields = {"subscriptionId": SUBSCRIPTION, "clientState": state, "tenantId": TENANT, **fields}
    fields = {key: value for key, value in fields.items() if value is not None}
    return json.dumps(fields, separators=(",", ":")).encode()


def raw(*elements, **more):
    """A delivery's body."""
    rest = "".join(f",{json.dumps(key)}:{json.dumps(value)}" for key, value in more.items()).encode()
    return b'{"value":[' + b",".join(elements) + b"]" + rest + b"}"


def event(kind, of, resource=None, data=None):
    """The event of one notification."""
    return BOOK.event(
        f"microsoft_graph.{kind.lower()}", kind, identity("microsoft-graph", kind, sha256(of)),
        subject=resource and ("resource", resource), tenant=("tenant", TENANT),
        related=RELATED + ([data] if data else []),
    )


MAIL = "Users/ddfcd489-628b-40d7-b48b-57002df800e5/Messages/AAMkAGUwNjQ4ZjIxLTQ3Y2YtNDViMi1iZjc4LTMA="
mail = element(
    changeType="created", resource=MAIL, subscriptionExpirationDateTime="2026-12-03T18:23:45.9356913Z",
    resourceData={"@odata.type": "#Microsoft.Graph.Message", "@odata.id": MAIL,
                  "@odata.etag": "W/\"CQAAABYAAADkrWGo7bouTKlsgTZMr9KwAAAUWRHf\"",
                  "id": "AAMkAGUwNjQ4ZjIxLTQ3Y2YtNDViMi1iZjc4LTMA="},
)
mailed = event("created", mail, MAIL, ("#Microsoft.Graph.Message", "AAMkAGUwNjQ4ZjIxLTQ3Y2YtNDViMi1iZjc4LTMA="))
user = element(
    changeType="updated", resource="Users/ddfcd489-628b-40d7-b48b-57002df800e5",
    resourceData={"@odata.type": "#Microsoft.Graph.User", "id": "ddfcd489-628b-40d7-b48b-57002df800e5"},
)
updated = event("updated", user, "Users/ddfcd489-628b-40d7-b48b-57002df800e5",
                ("#Microsoft.Graph.User", "ddfcd489-628b-40d7-b48b-57002df800e5"))
drive = element(changeType="updated", resource="me/drive/root")
lifecycle = element(lifecycleEvent="reauthorizationRequired",
                    subscriptionExpirationDateTime="2026-12-03T18:23:45.9356913Z")

BOOK.add("ok-one", "one notification: a message was created", [JSON], raw(mail), BOOK.accepted_all(mailed))
BOOK.add("ok-two", "two notifications of one delivery are two events, in order", [JSON], raw(mail, user),
         BOOK.accepted_all(mailed, updated))
BOOK.add("ok-no-resource-data", "a drive's root: no resource data", [JSON], raw(drive),
         BOOK.accepted_all(event("updated", drive, "me/drive/root")))
BOOK.add("ok-lifecycle", "a lifecycle notification names no resource", [JSON], raw(lifecycle),
         BOOK.accepted_all(event("reauthorizationRequired", lifecycle)))
rich = element(changeType="created", resource="teams('t1')/channels('c1')/messages('1612289765949')",
               encryptedContent={"data": "<made up>", "dataKey": "<made up>"})
BOOK.add("ok-rich", "a notification with resource data is forwarded as it is, beside its tokens", [JSON],
         raw(rich, validationTokens=["eyJ0eXAiOiJKV1Qi.made.up"]),
         BOOK.accepted_all(event("created", rich, "teams('t1')/channels('c1')/messages('1612289765949')")))
BOOK.add("ok-second-secret", "each notification has the state of its own subscription", [JSON],
         raw(mail, element("another made-up client state", changeType="updated", resource="me/drive/root")),
         BOOK.accepted_all(mailed, event("updated", element(
             "another made-up client state", changeType="updated", resource="me/drive/root"), "me/drive/root")),
         secrets=[STATE, "another made-up client state"])
bare = element(tenantId=None, subscriptionId=None)
BOOK.add("unnamed-notification", "a notification that says nothing but its state", [JSON], raw(bare),
         BOOK.accepted_all(BOOK.event("unmapped.unnamed", None, identity("microsoft-graph", None, sha256(bare)))))

BOOK.add("refused-wrong-state", "another state", [JSON],
         raw(element(STATE + "x", changeType="updated", resource="me/drive/root")), rejected("signature_mismatch"))
BOOK.add("refused-second-state", "the second notification has another state: nothing of the delivery enters", [JSON],
         raw(mail, element("guessed", changeType="updated", resource="me/drive/root")),
         rejected("signature_mismatch"))
BOOK.add("refused-no-state", "no state", [JSON],
         raw(element(None, changeType="updated", resource="me/drive/root")), rejected("signature_missing"))
BOOK.add("refused-second-no-state", "the second notification has no state: nothing of the delivery enters", [JSON],
         raw(mail, element(None, changeType="updated", resource="me/drive/root")), rejected("signature_missing"))
BOOK.add("refused-no-json", "a body that is no JSON has no state", [JSON], b"hello", rejected("signature_missing"))
BOOK.add("refused-get", "a GET", [], b"", rejected("method_not_allowed", 405), method="GET")

QUERY = "validationToken=Validation%3a+Testing+client+application+reachability+for+subscription+Request-Id%3a+8f4e"
TEXT = parse_qs(QUERY)["validationToken"][0]
ECHO = [["content-type", "text/plain"], ["x-content-type-options", "nosniff"]]
echoed = {"status": 200, "outcome": "handshake", "headers": ECHO}
PLAIN = [["content-type", "text/plain; charset=utf-8"]]
BOOK.add("handshake-token", "the token is answered decoded, a plus as a blank", PLAIN, b"",
         {**echoed, "answer": TEXT}, query=QUERY)
BOOK.add("handshake-percent", "blanks and other characters as escapes", PLAIN, b"",
         {**echoed, "answer": "a token/with+é"}, query="validationToken=a%20token%2Fwith%2B%C3%A9")
BOOK.add("handshake-among-others", "the token is one of several parameters", PLAIN, b"",
         {**echoed, "answer": "abc"}, query="tenant=x&validationToken=abc&y=1")
BOOK.add("handshake-1-KiB", "a token of 1 KiB", PLAIN, b"", {**echoed, "answer": "k" * 1024},
         query="validationToken=" + "k" * 1024)
BOOK.add("handshake-over-1-KiB", "a longer token", PLAIN, b"", rejected("handshake_invalid", 400),
         query="validationToken=" + "k" * 1025)
BOOK.add("handshake-no-token", "a POST without a token is a delivery", [JSON], raw(mail), BOOK.accepted_all(mailed),
         query="tenant=x")
BOOK.save()
