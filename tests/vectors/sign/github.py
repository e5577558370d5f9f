"""GitHub: signed by @octokit/webhooks-methods."""

import urllib.parse

import npm
from expected import Provider, accepted, body_id, compact, event, rejected, unreadable_id

NAME = "github"
SECRET = "a made up secret of a repository"
NOW = 1764500000
USER = {"login": "octocat", "id": 583231}
REPOSITORY = {"id": 1296269, "name": "Hello-World", "full_name": "octo-org/Hello-World"}
ORGANIZATION = {"login": "octo-org", "id": 6811672}
PULL = compact(
    {
        "action": "opened",
        "number": 7,
        "pull_request": {"id": 279147437, "number": 7, "state": "open", "title": "Grüße", "merged": False},
        "repository": REPOSITORY,
        "organization": ORGANIZATION,
        "sender": USER,
    }
)
PUSH = compact(
    {"ref": "refs/heads/main", "before": "0" * 40, "after": "1" * 40, "repository": REPOSITORY, "sender": USER}
)


def sign(raw, secret=SECRET):
    return npm.call(
        'import { sign, verify } from "@octokit/webhooks-methods";\n'
        "const signature = await sign(...args);\n"
        "if (!await verify(...args, signature)) throw new Error();\n"
        "give(signature);",
        secret,
        raw.decode(),
    )


def headers(signature, named="pull_request", kind="application/json"):
    return {
        "accept": "*/*",
        "content-type": kind,
        "user-agent": "GitHub-Hookshot/044aadd",
        "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        **({"x-github-event": named} if named else {}),
        "x-github-hook-id": "292430182",
        **({"x-hub-signature-256": signature} if signature else {}),
    }


def made(kind, raw, **entities):
    return event(NAME, kind, body_id(NAME, kind, raw), "hmac-sha256", **entities)


vectors = Provider(NAME, secrets=[SECRET])
IN = {"subject": ("repository", "1296269")}
OPENED = made(
    "pull_request.opened",
    PULL,
    **IN,
    tenant=("organization", "6811672"),
    related=[("pull_request", "279147437"), ("user", "583231")],
)


def good(name, about, raw, expect, **of):
    source = of.pop("source", {})
    vectors.add(
        "accepted", name, about, headers(of.pop("signature", None) or sign(raw), **of), raw, expect, now=NOW, **source
    )


def bad(name, about, reason, signature, raw=PULL, sent=None, **source):
    vectors.add("rejected", name, about, sent or headers(signature), raw, rejected(reason), now=NOW, **source)


good("ok", "a pull request was opened; the body holds letters beyond ASCII", PULL, accepted(OPENED))
good(
    "push",
    "an event without action",
    PUSH,
    accepted(made("push", PUSH, **IN, related=[("user", "583231")])),
    named="push",
)
ISSUE = compact({"action": "closed", "issue": {"id": 73464126}, "repository": REPOSITORY, "sender": USER})
good(
    "issue",
    "an issue was closed",
    ISSUE,
    accepted(made("issues.closed", ISSUE, **IN, related=[("issue", "73464126"), ("user", "583231")])),
    named="issues",
)
MEMBER = compact({"action": "member_added", "organization": ORGANIZATION, "sender": USER})
good(
    "organization",
    "an event of no repository has no subject",
    MEMBER,
    accepted(
        made("organization.member_added", MEMBER, tenant=("organization", "6811672"), related=[("user", "583231")])
    ),
    named="organization",
)
PING = compact({"zen": "Keep it simple.", "hook_id": 292430182, "repository": REPOSITORY, "sender": USER})
good(
    "ping",
    "the ping that a new webhook sends",
    PING,
    accepted(made("ping", PING, **IN, related=[("user", "583231")])),
    named="ping",
)
FORM = b"payload=" + urllib.parse.quote_plus(ISSUE).encode()
good(
    "form",
    "the content type application/x-www-form-urlencoded: the JSON is in a field",
    FORM,
    accepted(made("issues.closed", FORM)),
    named="issues",
    kind="application/x-www-form-urlencoded",
)
good("no-type", "neither the header nor an action", b'{"zen":"x"}', accepted(made(None, b'{"zen":"x"}')), named=None)
good(
    "action-only",
    "an action without the header",
    b'{"action":"created"}',
    accepted(made("created", b'{"action":"created"}')),
    named=None,
)
PUBLISHED = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
HELLO = b"Hello, World!"
good(
    "rotation",
    "the second of two secrets",
    PULL,
    accepted(OPENED),
    source={"secrets": ["an older made up secret", SECRET]},
)
good("upper-case", "hex of either case", PULL, accepted(OPENED), signature="sha256=" + sign(PULL)[7:].upper())
told = "It's a Secret to Everybody"
assert sign(HELLO, told) == PUBLISHED, sign(HELLO, told)
hello = event(NAME, None, unreadable_id(NAME, HELLO), "hmac-sha256", type="unmapped.unreadable")
good(
    "published-hello",
    "the documentation's test value; no JSON, so it is unreadable",
    HELLO,
    accepted(hello),
    named=None,
    signature=PUBLISHED,
    source={"secrets": [told]},
)

bad(
    "other-secret",
    "the secret of another webhook",
    "signature_mismatch",
    sign(PULL),
    secrets=["some other made up secret"],
)
bad("changed", "one changed body byte", "signature_mismatch", sign(PULL), PULL.replace(b"opened", b"openeD"))
bad("missing", "no signature header", "signature_missing", None)
bad("malformed-prefix", "another prefix", "signature_malformed", sign(PULL).replace("sha256", "sha512"))
bad("malformed-short", "63 hex digits", "signature_malformed", sign(PULL)[:-1])
sha1 = {**headers(None), "x-hub-signature": "sha1=" + "0" * 40}
bad("sha1-only", "the old header alone", "signature_missing", None, sent=sha1)
twice = [*headers(sign(PULL)).items(), ("x-hub-signature-256", sign(PUSH))]
bad("twice", "two signature headers", "signature_malformed", None, sent=twice)
vectors.write()
