"""Standard Webhooks: signed by the standardwebhooks and svix libraries (v1), and by PyNaCl (v1a)."""

import base64
import datetime

import nacl.signing
import standardwebhooks
import svix

from expected import Provider, accepted, compact, event, rejected

NAME = "standard-webhooks"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"another made up secret!!").decode()
# The first test key of RFC 8032.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes(nacl.signing.SigningKey(SEED).verify_key)
WHPK = "whpk_" + base64.b64encode(PUBLIC).decode()
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
AT = 1614265330
BODY = compact(
    {"type": "invoice.paid", "timestamp": "2021-02-25T15:02:10.75+01:00", "data": {"id": "inv_31", "total": 1900}}
)

DECOY = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
DECOY_V2 = DECOY.replace("v1", "v2")


def sign(raw=BODY, secret=SECRET, at=AT, own_id=ID, library=standardwebhooks):
    return library.Webhook(secret).sign(own_id, datetime.datetime.fromtimestamp(at, datetime.UTC), raw.decode())


def sign_v1a(raw=BODY, at=AT, own_id=ID, seed=SEED):
    signed = nacl.signing.SigningKey(seed).sign(f"{own_id}.{at}.".encode() + raw)
    return "v1a," + base64.b64encode(signed.signature).decode()


def headers(signature=None, at=AT, own_id=ID, prefix="webhook", without=()):
    named = {"content-type": "application/json"}
    for name, value in (("id", own_id), ("timestamp", str(at)), ("signature", signature)):
        if name not in without:
            named[f"{prefix}-{name}"] = value
    return named


def paid(own_id=ID):
    return event(NAME, "invoice.paid", own_id, NAME, time="2021-02-25T14:02:10.75Z")


def bare(own_id=ID, kind=None):
    return event(NAME, kind, own_id, NAME)


vectors = Provider(NAME, secrets=[SECRET])


def good(name, about, signature=None, expect=None, raw=BODY, at=AT, prefix="webhook", sent=None, **source):
    sent = sent or headers(signature or sign(raw, at=at), at, prefix=prefix)
    vectors.add("accepted", name, about, sent, raw, expect or accepted(paid()), now=at, **source)


def bad(name, about, reason, signature=None, raw=BODY, now=AT, sent=None, prefix="webhook", **source):
    sent = sent or headers(sign() if signature is None else signature, prefix=prefix)
    vectors.add("rejected", name, about, sent, raw, rejected(reason), now=now, **source)


TEST = b'{"test": 2432232314}'
USER = b'{"email":"test@example.com","username":"test_user"}'
PUBLISHED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
assert sign(TEST) == PUBLISHED == sign(TEST, library=svix)

# What the libraries' tests take.
good("ok", "a genuine delivery, by the specification's advice")
good("ok-svix", "the same under Svix's header names", sign(library=svix), prefix="svix")
good("published-sign", "the signature that the libraries' tests publish; no type", PUBLISHED, accepted(bare()), TEST)
RUST_ID, RUST_AT, RUST_SECRET = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1649367553, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
RUST = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
assert sign(USER, RUST_SECRET, RUST_AT, RUST_ID) == RUST
good(
    "published-sign-rust",
    "the signature that the Rust libraries' tests publish",
    expect=accepted(bare(RUST_ID)),
    raw=USER,
    at=RUST_AT,
    sent=headers(RUST, RUST_AT, RUST_ID),
    secrets=[RUST_SECRET],
)
MANUAL_ID, MANUAL_AT, MANUAL_SECRET = "msg_loFOjxBNrRLzqYUf", 1731705121, "whsec_plJ3nmyCDGBKInavdOK15jsl"
MANUAL = "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="
PING = b'{"event_type":"ping","data":{"success":true}}'
assert sign(PING, MANUAL_SECRET, MANUAL_AT, MANUAL_ID) == MANUAL
good(
    "published-manual",
    "the example of Svix's page on verifying by hand",
    expect=accepted(bare(MANUAL_ID)),
    raw=PING,
    at=MANUAL_AT,
    sent=headers(MANUAL, MANUAL_AT, MANUAL_ID, prefix="svix"),
    secrets=[MANUAL_SECRET],
)
several = " ".join([DECOY, DECOY_V2, sign(), DECOY])
good("several", "several signatures, of which one is right", several)
good("several-svix", "the same under Svix's header names", several, prefix="svix")
rust_several = " ".join(
    [
        "v1,tFtCZ5RDCPxzWQRWXWPgrCgE2frDBe9gjpbWQxnVfsQ=",
        "v1,Mm7xgUVICxZfQ3bgf0h0Dof65L/IFx+PnZvnDWPCX6Q=",
        sign(),
        "v1,9DfC1c3eeOrXB6w/5dIDydLNQaEyww5KalE5jLBZucE=",
    ]
)
good("several-rust", "the Rust libraries' list", rust_several)
good("secret-without-prefix", "a secret without whsec_", secrets=[SECRET.removeprefix("whsec_")])
for name, bare_secret in (("one", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS"), ("two", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwBr")):
    good(
        f"secret-unpadded-{name}",
        f"a secret that lacks {name} of padding",
        sign(secret=bare_secret),
        secrets=[bare_secret],
    )
good(
    "secret-unpadded-prefix",
    "an unpadded secret with whsec_",
    sign(secret=bare_secret),
    secrets=["whsec_" + bare_secret],
)
unreadable = bare(kind=None) | {"type": "unmapped.unreadable"}
good("empty", "an empty body is signed too; its id is the message id", expect=accepted(unreadable), raw=b"")

# What they refuse.
for prefix in ("webhook", "svix"):
    for part in ("id", "timestamp", "signature"):
        sent = headers(sign(), prefix=prefix, without=(part,))
        bad(f"missing-{part}-{prefix}", f"without {prefix}-{part}", "signature_missing", sent=sent)
bad("timestamp-word", "a timestamp that is no number", "signature_malformed", sent=headers(sign(), "hello"))
bad("timestamp-negative", "a timestamp before 1970", "signature_malformed", sent=headers(sign(at=-1), -1))
bad("timestamp-changed", "another timestamp than the signed one", "signature_mismatch", sent=headers(sign(), AT + 1))
bad(
    "timestamp-2000",
    "a timestamp that was never signed",
    "signature_mismatch",
    now=946684800,
    sent=headers(sign(), 946684800),
)
bad("stale", "a second past the tolerance", "timestamp_outside_tolerance", now=AT + 301)
bad("early", "a second before the tolerance", "timestamp_outside_tolerance", now=AT - 301)
bad("stale-svix", "a second past the tolerance", "timestamp_outside_tolerance", now=AT + 301, prefix="svix")
bad(
    "invalid-python",
    "the Python tests' wrong digest",
    "signature_mismatch",
    "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA=",
    TEST,
)
bad(
    "invalid-javascript",
    "the JavaScript tests' wrong digest, too short",
    "signature_malformed",
    "v1,dawfeoifkpqwoekfpqoekf",
    TEST,
)
bad("invalid-go", "the Go tests' wrong digest", "signature_mismatch", DECOY, TEST)
bad(
    "invalid-rust",
    "the Rust tests' wrong digest",
    "signature_mismatch",
    "v1,R3PTzyfHASBKHH98a7yexTwaJ4yNIcGhFQc1yuN+BPU=",
    USER,
)
bad("partial", "the first characters of the signature", "signature_malformed", sign()[:8])
bad("partial-version", "the version alone", "signature_malformed", "v1,")
bad("several-wrong", "several signatures, none right", "signature_mismatch", rust_several.replace(sign() + " ", ""))
bad("version-unknown", "the right digest under an unknown version", "signature_malformed", sign().replace("v1", "v2"))
bad("no-version", "the right digest without version", "signature_malformed", sign().removeprefix("v1,"))

# v1a.
good("v1a", "an ed25519 signature, by a whpk_ key", sign_v1a(), secrets=[WHPK])
good("v1a-svix", "the same under Svix's header names", sign_v1a(), prefix="svix", secrets=[WHPK])
good("v1a-hex-key", "the key as hex of its 32 bytes", sign_v1a(), secrets=[PUBLIC.hex()])
good("v1a-beside-v1", "both versions, of which the source has one key", DECOY + " " + sign_v1a(), secrets=[WHPK])
good("v1-beside-v1a", "both kinds of key; only v1 is right", sign() + " " + sign_v1a(b"{}"), secrets=[WHPK, SECRET])
good("v1a-of-both-keys", "both kinds of key; only v1a is right", DECOY + " " + sign_v1a(), secrets=[SECRET, WHPK])
bad(
    "v1a-changed",
    "one changed body byte",
    "signature_mismatch",
    sign_v1a(),
    BODY.replace(b"1900", b"9900"),
    secrets=[WHPK],
)
bad("v1a-other-key", "the key of somebody else", "signature_mismatch", sign_v1a(seed=b"\7" * 32), secrets=[WHPK])
bad("v1a-short", "a v1a entry of 32 bytes", "signature_malformed", DECOY.replace("v1", "v1a"), secrets=[WHPK])
bad("v1a-without-key", "a v1a signature, and only a secret for v1", "signature_mismatch", sign_v1a())
bad("v1-without-key", "a v1 signature, and only a public key", "signature_mismatch", sign(), secrets=[WHPK])
as_hmac = sign(secret=base64.b64encode(PUBLIC).decode())
bad("public-key-as-secret", "the public key serves as no HMAC key", "signature_mismatch", as_hmac, secrets=[WHPK])
bad("v1a-stale", "a second past the tolerance", "timestamp_outside_tolerance", sign_v1a(), now=AT + 301, secrets=[WHPK])

# Lists as senders and proxies make them, and both sets of headers.
good("list-commas", "a proxy joined two lines with a comma", f"{DECOY}, {sign()},{DECOY}")
good("list-tabs", "entries separated by tabs", f"{DECOY}\t{sign()}")
lines = [("content-type", "application/json"), ("webhook-id", ID), ("webhook-timestamp", str(AT))]
good(
    "list-lines",
    "two signature headers are one list",
    sent=[*lines, ("webhook-signature", DECOY), ("webhook-signature", sign())],
)
bad(
    "id-twice",
    "two message ids",
    "signature_malformed",
    sent=[*lines, ("webhook-id", "msg_2"), ("webhook-signature", sign())],
)
both = headers(DECOY) | headers(sign(own_id="msg_svix"), own_id="msg_svix", prefix="svix")
good("both-sets", "Svix's set is right, the other one is not", expect=accepted(paid("msg_svix")), sent=both)
mixed = headers(without=("signature",)) | headers(sign(), prefix="svix", without=("id", "timestamp"))
bad("sets-mixed", "each set lacks a header, and they do not complete each other", "signature_missing", sent=mixed)

# The rest.
good("rotation", "the second of two secrets", secrets=[OTHER, SECRET])
bad("other-secret", "the secret of another endpoint", "signature_mismatch", secrets=[OTHER])
bad("changed", "one changed body byte", "signature_mismatch", raw=BODY.replace(b"1900", b"9900"))
bad(
    "changed-id",
    "another message id than the signed one",
    "signature_mismatch",
    sent=headers(sign(), own_id="msg_other"),
)
renewed = compact({"type": "Subscription-Renewed", "timestamp": "yesterday", "data": {}})
good(
    "plain-letters",
    "a type with other letters, a time that does not parse",
    expect=accepted(event(NAME, "Subscription-Renewed", ID, NAME)),
    raw=renewed,
)
good("array", "an array is unreadable; its id is the message id", expect=accepted(unreadable), raw=b"[1]")
vectors.write()
