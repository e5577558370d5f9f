"""GitLab: signed by the standardwebhooks library, or with the token itself."""

import base64
import datetime

import standardwebhooks

from expected import Provider, accepted, body_id, compact, event, rejected, unreadable_id

NAME = "gitlab"
TOKEN = "a made up token of a project"
SIGNING = "whsec_" + base64.b64encode(b"a made up signing token, 32 byte").decode()
OTHER = "whsec_" + base64.b64encode(b"another made up token of 32 byte").decode()
AT = 1764500000
ID = "1d2b9d5e-6f9a-4b55-a2a8-3a1ad2ae2d6f"
USER = {"id": 1, "name": "Administrator", "username": "root"}
PROJECT = {"id": 15, "name": "Gitlab Test", "path_with_namespace": "gitlab-org/gitlab-test"}
MERGE = compact(
    {
        "object_kind": "merge_request",
        "event_type": "merge_request",
        "user": USER,
        "project": PROJECT,
        "object_attributes": {
            "id": 99,
            "iid": 1,
            "state": "merged",
            "updated_at": "2025-11-30T10:53:10+00:00",
            "action": "merge",
        },
    }
)


def sign(raw=MERGE, secret=SIGNING, at=AT, own_id=ID):
    when = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return standardwebhooks.Webhook(secret).sign(own_id, when, raw.decode())


def headers(name="Merge Request Hook", token=None, signature=None, at=AT, own_id=ID):
    named = {
        "content-type": "application/json",
        "user-agent": "GitLab/18.6.0",
        "x-gitlab-event": name,
        "x-gitlab-webhook-uuid": "4f2c7b8a-0f29-4d3e-8a56-0e8f0d2f1c11",
        "x-gitlab-event-uuid": "13792a34-cac6-4fda-95a8-c58e00a3954e",
        "x-gitlab-instance": "https://gitlab.example.com",
        "idempotency-key": ID,
    }
    if token is not None:
        named["x-gitlab-token"] = token
    if signature:
        named |= {"webhook-id": own_id, "webhook-timestamp": str(at), "webhook-signature": signature}
    return named


vectors = Provider(NAME, secrets=[TOKEN])
SIGNED = {"secrets": [SIGNING]}
MERGED = {
    "subject": ("project", "15"),
    "related": [("merge_request", "99"), ("user", "1")],
    "status": (None, "merged"),
    "time": "2025-11-30T10:53:10Z",
}


def by_token(kind, raw, **entities):
    return accepted(event(NAME, kind, body_id(NAME, kind, raw), "shared-secret", **entities))


def by_signature(kind, own_id=ID, **entities):
    return accepted(event(NAME, kind, own_id, "hmac-sha256", **entities))


def good(name, about, sent, expect, raw=MERGE, now=AT, **source):
    vectors.add("accepted", name, about, sent, raw, expect, now=now, **source)


def bad(name, about, reason, sent, raw=MERGE, now=AT, **source):
    vectors.add("rejected", name, about, sent, raw, rejected(reason), now=now, **source)


OF_TOKEN = by_token("merge_request.merge", MERGE, **MERGED)
OF_SIGNATURE = by_signature("merge_request.merge", **MERGED)
good("ok", "a merge request was merged; the token is sent as it is", headers(token=TOKEN), OF_TOKEN)
good("ok-signed", "the same, signed with a signing token", headers(signature=sign()), OF_SIGNATURE, **SIGNED)
good(
    "both",
    "both are sent, and the source has only the signing token",
    headers(token=TOKEN, signature=sign()),
    OF_SIGNATURE,
    **SIGNED,
)
good("rotation", "the second of two tokens", headers(token=TOKEN), OF_TOKEN, secrets=["an older made up token", TOKEN])
good(
    "migration",
    "a source with a token and a signing token takes a signature",
    headers(signature=sign()),
    OF_SIGNATURE,
    secrets=[TOKEN, SIGNING],
)
good("migration-token", "and the token", headers(token=TOKEN), OF_TOKEN, secrets=[SIGNING, TOKEN])
PUSH = compact(
    {
        "object_kind": "push",
        "event_name": "push",
        "ref": "refs/heads/main",
        "user_id": 4,
        "project_id": 15,
        "project": PROJECT,
    }
)
good(
    "push",
    "a push",
    headers("Push Hook", TOKEN),
    by_token("push.push", PUSH, subject=("project", "15"), related=[("user", "4")]),
    PUSH,
)
NOTE = compact(
    {
        "object_kind": "note",
        "user": USER,
        "project": PROJECT,
        "object_attributes": {"id": 1244, "updated_at": "2025-11-30 10:53:10 UTC", "note": "Schön"},
    }
)
good(
    "note",
    "a comment; its time is not RFC 3339",
    headers("Note Hook", TOKEN),
    by_token("note", NOTE, subject=("project", "15"), related=[("note", "1244"), ("user", "1")]),
    NOTE,
)
MEMBER = compact(
    {"event_name": "user_add_to_group", "group_id": 100, "user_id": 64, "created_at": "2025-11-30T10:53:10Z"}
)
good(
    "member",
    "an event of a group has no project",
    headers("Member Hook", TOKEN),
    by_token("user_add_to_group", MEMBER, tenant=("group", "100"), related=[("user", "64")]),
    MEMBER,
)
RELEASE = compact({"object_kind": "release", "id": 1, "action": "create", "project": PROJECT})
good(
    "release",
    "an action at the top",
    headers("Release Hook", TOKEN),
    by_token("release.create", RELEASE, subject=("project", "15")),
    RELEASE,
)
good(
    "no-type",
    "a payload that names no event",
    headers("Odd Hook", TOKEN),
    by_token(None, b'{"project":{"id":15}}', subject=("project", "15")),
    b'{"project":{"id":15}}',
)
good(
    "no-type-signed",
    "the same, signed: the message id identifies it",
    headers(signature=sign(b'{"a":1}')),
    by_signature(None),
    b'{"a":1}',
    **SIGNED,
)
ARRAY = event(NAME, None, unreadable_id(NAME, b"[]"), "shared-secret", type="unmapped.unreadable")
good("array", "an array is unreadable", headers(token=TOKEN), accepted(ARRAY), b"[]")

bad("other-token", "the token of another webhook", "signature_mismatch", headers(token="some other made up token"))
bad("token-prefix", "a token that only begins like the right one", "signature_mismatch", headers(token=TOKEN[:-1]))
bad("token-case", "a token in another case", "signature_mismatch", headers(token=TOKEN.upper()))
bad("missing", "neither token nor signature", "signature_missing", headers())
bad("missing-signed", "neither, where a signing token is set", "signature_missing", headers(), **SIGNED)
bad(
    "token-twice",
    "two token headers",
    "signature_malformed",
    [*headers(token=TOKEN).items(), ("x-gitlab-token", TOKEN)],
)
bad(
    "other-signing",
    "the signing token of another webhook",
    "signature_mismatch",
    headers(signature=sign(secret=OTHER)),
    **SIGNED,
)
bad(
    "changed",
    "one changed body byte",
    "signature_mismatch",
    headers(signature=sign()),
    MERGE.replace(b"merged", b"closed"),
    **SIGNED,
)
bad(
    "changed-id",
    "another message id than the signed one",
    "signature_mismatch",
    headers(signature=sign(), own_id="other"),
    **SIGNED,
)
bad("malformed", "a signature that is too short", "signature_malformed", headers(signature="v1,AAAA"), **SIGNED)
bad(
    "stale",
    "a second past the tolerance",
    "timestamp_outside_tolerance",
    headers(signature=sign()),
    now=AT + 301,
    **SIGNED,
)
bad(
    "no-message-id",
    "a signature without message id",
    "signature_missing",
    {k: v for k, v in headers(signature=sign()).items() if k != "webhook-id"},
    **SIGNED,
)
vectors.write()
