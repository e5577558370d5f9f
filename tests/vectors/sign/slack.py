"""Slack: signed and verified by slack_sdk."""

import urllib.parse

from slack_sdk.signature import Clock, SignatureVerifier

from expected import Provider, accepted, body_id, compact, event, handshake, rejected

NAME = "slack"
SECRET = "made-up-signing-secret-0123456789"
AT = 1764500000
MESSAGE = {
    "token": "made-up-verification-token",
    "team_id": "T061EG9R6",
    "api_app_id": "A0FFV41KK",
    "event": {
        "type": "message",
        "channel": "C061EG9SL",
        "user": "U061F1EUR",
        "text": "Hello 👋",
        "ts": "1764499999.000100",
    },
    "type": "event_callback",
    "event_id": "Ev9UQ52YNA",
    "event_time": 1764499999,
}
BODY = compact(MESSAGE)
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


class Fixed(Clock):
    def __init__(self, at):
        self.at = at

    def now(self):
        return self.at


def sign(raw=BODY, secret=SECRET, at=AT):
    verifier = SignatureVerifier(secret, Fixed(at))
    signature = verifier.generate_signature(timestamp=str(at), body=raw)
    assert verifier.is_valid(raw, str(at), signature)
    return signature


def headers(signature, at=AT, kind=JSON):
    named = {"content-type": kind}
    if at is not None:
        named["x-slack-request-timestamp"] = str(at)
    return named | ({"x-slack-signature": signature} if signature else {})


def made(kind, own_id, **entities):
    return event(NAME, kind, own_id, "hmac-sha256", **entities)


vectors = Provider(NAME, secrets=[SECRET])
OF = {"tenant": ("team", "T061EG9R6"), "time": "2025-11-30T10:53:19Z"}
SAID = made(
    "event_callback.message",
    "Ev9UQ52YNA",
    subject=("channel", "C061EG9SL"),
    related=[("user", "U061F1EUR")],
    **OF,
)


def good(name, about, raw=BODY, expect=SAID, signature=None, now=AT, at=AT, kind=JSON, theme="accepted", **source):
    expect = expect if "status" in expect else accepted(expect)
    vectors.add(theme, name, about, headers(signature or sign(raw, at=at), at, kind), raw, expect, now=now, **source)


def bad(name, about, reason, signature=None, raw=BODY, now=AT, at=AT, sent=None, **source):
    sent = sent or headers(sign() if signature is None else signature, at)
    vectors.add("rejected", name, about, sent, raw, rejected(reason), now=now, **source)


def of_event(event_id, **inner):
    return compact(MESSAGE | {"event_id": event_id, "event": inner})


good("ok", "a message in a channel")
JOIN = of_event("Ev2", type="message", subtype="channel_join", channel="C061EG9SL", user="U061F1EUR")
good(
    "subtype",
    "a message with a subtype",
    JOIN,
    made(
        "event_callback.message.channel_join",
        "Ev2",
        subject=("channel", "C061EG9SL"),
        related=[("user", "U061F1EUR")],
        **OF,
    ),
)
REACTION = of_event(
    "Ev3",
    type="reaction_added",
    user="U061F1EUR",
    reaction="thumbsup",
    item={"type": "message", "channel": "C9", "ts": "1.2"},
)
good(
    "reaction",
    "an event about an item; it has no channel of its own",
    REACTION,
    made("event_callback.reaction_added", "Ev3", related=[("user", "U061F1EUR"), ("channel", "C9")], **OF),
)
CREATED = of_event("Ev4", type="channel_created", channel={"id": "C10", "name": "fun"})
good(
    "channel-object",
    "a channel that is an object names no subject",
    CREATED,
    made("event_callback.channel_created", "Ev4", **OF),
)
LIMITED = compact({"type": "app_rate_limited", "team_id": "T061EG9R6", "minute_rate_limited": 1518467820})
good(
    "rate-limited",
    "a notice without event id",
    LIMITED,
    made("app_rate_limited", body_id(NAME, "app_rate_limited", LIMITED), tenant=("team", "T061EG9R6")),
)
UNTYPED = compact({"event_id": "Ev5", "team_id": "T061EG9R6", "event_time": 1764499999})
good("no-type", "a payload without type", UNTYPED, made(None, "Ev5", **OF))
good("rotation", "the second of two secrets", secrets=["an older made up secret", SECRET])

# Forms.
PUBLISHED_SECRET, PUBLISHED_AT = "8f742231b10e8888abcd99yyyzzz85a5", 1531420618
PUBLISHED_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
    b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
PUBLISHED = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
assert sign(PUBLISHED_BODY, PUBLISHED_SECRET, PUBLISHED_AT) == PUBLISHED
good(
    "published-command",
    "the documentation's example: a slash command",
    PUBLISHED_BODY,
    made(
        "/webhook-collect",
        body_id(NAME, "/webhook-collect", PUBLISHED_BODY),
        tenant=("team", "T1DC2JH3J"),
        related=[("channel", "G8PSS9T3V"), ("user", "U2CERLKJA")],
    ),
    PUBLISHED,
    PUBLISHED_AT,
    PUBLISHED_AT,
    FORM,
    secrets=[PUBLISHED_SECRET],
)
ACTION = {
    "type": "block_actions",
    "team": {"id": "T061EG9R6"},
    "user": {"id": "U061F1EUR"},
    "actions": [{"value": "a+b & ü"}],
}
CLICK = b"payload=" + urllib.parse.quote_plus(compact(ACTION)).encode()
good(
    "interaction",
    "a click: JSON in a form's field",
    CLICK,
    made("block_actions", body_id(NAME, "block_actions", CLICK)),
    kind=FORM,
)

# The handshake.
CHALLENGE = compact(
    {
        "token": "made-up",
        "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P",
        "type": "url_verification",
    }
)
ANSWER = compact({"challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}).decode()
good(
    "url-verification", "a new address is confirmed with the challenge", CHALLENGE, handshake(ANSWER), theme="handshake"
)
vectors.add(
    "handshake",
    "url-verification-unsigned",
    "nobody else gets an answer",
    headers(None),
    CHALLENGE,
    rejected("signature_missing"),
    now=AT,
)
vectors.add(
    "handshake",
    "url-verification-other-secret",
    "nor with another secret",
    headers(sign(CHALLENGE, "another made up secret")),
    CHALLENGE,
    rejected("signature_mismatch"),
    now=AT,
)
LOOKALIKE = compact(
    {"type": "event_callback", "event_id": "Ev6", "event": {"type": "url_verification"}, "challenge": "x"}
)
good(
    "url-verification-inner",
    "only the outer type counts",
    LOOKALIKE,
    made("event_callback.url_verification", "Ev6"),
    theme="handshake",
)

bad("other-secret", "the secret of another app", "signature_mismatch", secrets=["some other made up secret"])
bad("changed", "one changed body byte", "signature_mismatch", raw=BODY.replace(b"Hello", b"hello"))
bad("changed-time", "another time than the signed one", "signature_mismatch", at=AT + 1)
bad("stale", "a second past the tolerance", "timestamp_outside_tolerance", now=AT + 301)
bad("missing", "no signature header", "signature_missing", "")
bad("missing-time", "no timestamp header", "signature_missing", at=None)
bad("malformed-version", "an unknown version", "signature_malformed", sign().replace("v0", "v1"))
bad("malformed-short", "63 hex digits", "signature_malformed", sign()[:-1])
bad("malformed-time", "a time that is no number", "signature_malformed", at="12:00")
twice = [*headers(sign()).items(), ("x-slack-request-timestamp", str(AT))]
bad("time-twice", "two timestamp headers", "signature_malformed", sent=twice)
vectors.write()
