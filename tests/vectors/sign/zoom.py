"""Zoom: signed by Python's hmac, and verified and answered by @zoom/rivet."""

import hmac
import json

import npm
from expected import Provider, accepted, body_id, compact, event, handshake, rejected

NAME = "zoom"
SECRET = "made-up-secret-token-01"
AT = 1764500000
STARTED = compact(
    {
        "event": "meeting.started",
        "event_ts": 1764499999123,
        "payload": {
            "account_id": "AAAAAABBBB",
            "object": {
                "id": "1234567890",
                "uuid": "4444AAAiAAAAAiAiAiiAii==",
                "host_id": "x1yCzABCDEfg23HiJKl4mN",
                "topic": "Später",
                "type": 2,
            },
        },
    }
)


def sign(raw=STARTED, secret=SECRET, at=AT):
    return "v0=" + hmac.new(secret.encode(), f"v0:{at}:".encode() + raw, "sha256").hexdigest()


def receive(raw, sent, secret=SECRET):
    """The status and the body that Zoom's receiver answers. It does not check how old a request is."""
    return npm.call(
        'import { AwsLambdaReceiver } from "@zoom/rivet/users";\n'
        "const [body, headers, webhooksSecretToken] = args;\n"
        "console.debug = () => {};\n"
        "const receiver = new AwsLambdaReceiver({ webhooksSecretToken });\n"
        "receiver.init({ eventEmitter: { emit() {} } });\n"
        "give(await receiver.start()({ body, headers, isBase64Encoded: false }, {}));",
        raw.decode(),
        sent,
        secret,
    )


def headers(signature, at=AT):
    named = {"content-type": "application/json; charset=utf-8", "user-agent": "Zoom Marketplace/1.0a"}
    named |= {"x-zm-request-timestamp": str(at)} if at is not None else {}
    return named | ({"x-zm-signature": signature} if signature else {})


def made(kind, raw, **entities):
    return event(NAME, kind, body_id(NAME, kind, raw), "hmac-sha256", **entities)


vectors = Provider(NAME, secrets=[SECRET])


def good(name, about, raw, expect, signature=None, now=AT, at=AT, checked=True, theme="accepted", **source):
    sent = headers(signature or sign(raw, at=at), at)
    if checked:
        answer = receive(raw, sent)
        assert answer["statusCode"] == 200, answer
        if expect["outcome"] == "handshake":
            assert json.loads(answer["body"]) == json.loads(expect["answer"]), answer
    vectors.add(theme, name, about, sent, raw, expect, now=now, **source)


def bad(
    name, about, reason, signature=None, raw=STARTED, now=AT, at=AT, checked=True, theme="rejected", sent=None, **source
):
    sent = sent or headers(sign() if signature is None else signature, at)
    if checked:
        assert receive(raw, sent, source.get("secrets", [SECRET])[0])["statusCode"] == 400, name
    vectors.add(theme, name, about, sent, raw, rejected(reason), now=now, **source)


OF = {"tenant": ("account", "AAAAAABBBB"), "time": "2025-11-30T10:53:19.123Z"}
IN = {"subject": ("object", "1234567890")}
HOST = [("instance", "4444AAAiAAAAAiAiAiiAii=="), ("user", "x1yCzABCDEfg23HiJKl4mN")]
BEGAN = made("meeting.started", STARTED, related=HOST, **IN, **OF)
good("ok", "a meeting started; the time is in milliseconds", STARTED, accepted(BEGAN))
JOINED = compact(
    {
        "event": "meeting.participant_joined",
        "event_ts": 1764499999123,
        "payload": {
            "account_id": "AAAAAABBBB",
            "object": {
                "id": 1234567890,
                "uuid": "4444AAAiAAAAAiAiAiiAii==",
                "host_id": "x1yCzABCDEfg23HiJKl4mN",
                "participant": {"user_id": "167782040", "user_name": "shree"},
            },
        },
    }
)
good(
    "participant",
    "a participant joined; the meeting's id is a number",
    JOINED,
    accepted(made("meeting.participant_joined", JOINED, related=[*HOST, ("participant", "167782040")], **IN, **OF)),
)
USER = compact(
    {
        "event": "user.updated",
        "event_ts": 1764499999000,
        "payload": {"account_id": "AAAAAABBBB", "object": {"id": "z8dsdsdsdsdCfp8uQ"}},
    }
)
good(
    "user",
    "an event about a user",
    USER,
    accepted(
        made(
            "user.updated",
            USER,
            subject=("object", "z8dsdsdsdsdCfp8uQ"),
            tenant=("account", "AAAAAABBBB"),
            time="2025-11-30T10:53:19Z",
        )
    ),
)
UNTYPED = compact({"event_ts": 1764499999123, "payload": {"account_id": "AAAAAABBBB"}})
good("no-type", "a payload without event", UNTYPED, accepted(made(None, UNTYPED, **OF)), checked=False)
good("rotation", "the second of two secrets", STARTED, accepted(BEGAN), secrets=["made-up-newer-secret-token", SECRET])

# The handshake.
VALIDATION = compact(
    {"payload": {"plainToken": "qgg8vlvZRS6UYooatFL8Aw"}, "event_ts": 1764499999123, "event": "endpoint.url_validation"}
)


def answer_under(secret):
    encrypted = hmac.new(secret.encode(), b"qgg8vlvZRS6UYooatFL8Aw", "sha256").hexdigest()
    return handshake(compact({"encryptedToken": encrypted, "plainToken": "qgg8vlvZRS6UYooatFL8Aw"}).decode())


good("url-validation", "the token and its HMAC", VALIDATION, answer_under(SECRET), theme="handshake")
good(
    "url-validation-rotation",
    "the HMAC is under the key that verified, the second one",
    VALIDATION,
    answer_under(SECRET),
    theme="handshake",
    secrets=["made-up-newer-secret-token", SECRET],
)
bad(
    "url-validation-other-secret",
    "nobody else learns an HMAC",
    "signature_mismatch",
    sign(VALIDATION, "made-up-other"),
    VALIDATION,
    theme="handshake",
)
bad("url-validation-unsigned", "nor without signature", "signature_missing", "", VALIDATION, theme="handshake")
bad(
    "url-validation-stale",
    "nor with an old one",
    "timestamp_outside_tolerance",
    sign(VALIDATION),
    VALIDATION,
    now=AT + 301,
    checked=False,
    theme="handshake",
)

bad("other-secret", "the secret of another app", "signature_mismatch", secrets=["made-up-other-secret-token"])
bad("changed", "one changed body byte", "signature_mismatch", raw=STARTED.replace(b"started", b"Started"))
bad("changed-time", "another time than the signed one", "signature_mismatch", at=AT + 1)
bad("stale", "a second past the tolerance", "timestamp_outside_tolerance", now=AT + 301, checked=False)
bad("missing", "no signature header", "signature_missing", "")
bad("missing-time", "no timestamp header", "signature_missing", at=None)
bad("malformed-version", "an unknown version", "signature_malformed", sign().replace("v0", "v1"))
bad("malformed-short", "63 hex digits", "signature_malformed", sign()[:-1])
bad("malformed-time", "a time that is no number", "signature_malformed", at="today")
vectors.write()
