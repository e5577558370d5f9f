"""Discord: signed by PyNaCl, and verified by discord-interactions."""

import base64

import nacl.signing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import npm
from expected import Provider, accepted, body_id, compact, event, handshake, rejected

NAME = "discord"
# The second test key of RFC 8032.
KEY = nacl.signing.SigningKey(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
OTHER = nacl.signing.SigningKey(b"\7" * 32)
PUBLIC = bytes(KEY.verify_key).hex()
AT = 1764500000


def payload(kind=None, data=None, time="2025-11-30T10:53:10.064834", outer=1):
    whole = {"version": 1, "application_id": "1234560123453231555", "type": outer}
    return compact(whole | ({"event": {"type": kind, "timestamp": time, "data": data}} if kind else {}))


AUTHORIZED = payload(
    "APPLICATION_AUTHORIZED",
    {
        "integration_type": 0,
        "scopes": ["applications.commands"],
        "user": {"id": "103735883630395392", "username": "göki"},
        "guild": {"id": "104735883630395322", "name": "Guild"},
    },
)


def sign(raw=AUTHORIZED, key=KEY, at=AT):
    return key.sign(str(at).encode() + raw).signature.hex()


def holds(raw, sent):
    return npm.call(
        'import { verifyKey } from "discord-interactions";\n'
        "const [body, signature, timestamp, key] = args;\n"
        "give(await verifyKey(body, signature, timestamp, key));",
        raw.decode(),
        sent.get("x-signature-ed25519", ""),
        sent.get("x-signature-timestamp", ""),
        PUBLIC,
    )


def headers(signature, at=AT):
    named = {"content-type": "application/json", "user-agent": "Discord-Webhook/1.0 (+https://discord.com)"}
    named |= {"x-signature-timestamp": str(at)} if at is not None else {}
    return named | ({"x-signature-ed25519": signature} if signature else {})


def made(kind, raw, **entities):
    tenant = ("application", "1234560123453231555")
    return event(NAME, kind, body_id(NAME, kind, raw), "ed25519", tenant=tenant, **entities)


vectors = Provider(NAME, secrets=[PUBLIC])


def good(name, about, raw=AUTHORIZED, expect=None, signature=None, now=AT, theme="accepted", **source):
    sent = headers(signature or sign(raw))
    assert holds(raw, sent), name
    vectors.add(theme, name, about, sent, raw, expect or accepted(ALLOWED), now=now, **source)


def bad(name, about, reason, signature=None, raw=AUTHORIZED, now=AT, at=AT, theme="rejected", checked=True, **source):
    sent = headers(sign() if signature is None else signature, at)
    assert not checked or not holds(raw, sent), name
    vectors.add(theme, name, about, sent, raw, rejected(reason), now=now, **source)


ALLOWED = made(
    "APPLICATION_AUTHORIZED",
    AUTHORIZED,
    subject=("user", "103735883630395392"),
    related=[("guild", "104735883630395322")],
)
good("ok", "a user added the application; the time has no offset and is left out")
ENTITLEMENT = payload(
    "ENTITLEMENT_CREATE",
    {
        "id": "1019653849998299136",
        "sku_id": "1019475255913222144",
        "user_id": "771129655544643584",
        "guild_id": None,
        "type": 1,
    },
    "2025-11-30T10:53:10.064834+00:00",
)
good(
    "entitlement",
    "an entitlement; a time with an offset",
    ENTITLEMENT,
    accepted(
        made(
            "ENTITLEMENT_CREATE",
            ENTITLEMENT,
            time="2025-11-30T10:53:10.064834Z",
            related=[("user", "771129655544643584"), ("sku", "1019475255913222144"), ("object", "1019653849998299136")],
        )
    ),
)
UNTYPED = payload()
good("no-type", "an event without its body", UNTYPED, accepted(made(None, UNTYPED)))
good("upper-case", "hex of either case", signature=sign().upper())
good("rotation", "the second of two keys", secrets=[bytes(OTHER.verify_key).hex(), PUBLIC])
good("key-base64", "the key as base64", secrets=[base64.b64encode(bytes(KEY.verify_key)).decode()])
SPKI = Ed25519PublicKey.from_public_bytes(bytes(KEY.verify_key))
good("key-pem", "the key as PEM", secrets=[SPKI.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()])
good(
    "key-spki",
    "the key as hex of its SubjectPublicKeyInfo",
    secrets=[SPKI.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()],
)

# The handshake.
PING = payload(outer=0)
good("ping", "the ping of a new address", PING, handshake("", 204), theme="handshake")
bad(
    "ping-other-key",
    "Discord also tests with a wrong signature",
    "signature_mismatch",
    sign(PING, OTHER),
    PING,
    theme="handshake",
)
bad("ping-unsigned", "nor without signature", "signature_missing", "", PING, theme="handshake")
TEXT = PING.replace(b'"type":0', b'"type":"0"')
good("ping-text", "a type that is the text 0 is no ping", TEXT, accepted(made(None, TEXT)), theme="handshake")

bad("other-key", "the key of another application", "signature_mismatch", sign(key=OTHER))
bad("changed", "one changed body byte", "signature_mismatch", raw=AUTHORIZED.replace(b"Guild", b"guild"))
bad("changed-time", "another time than the signed one", "signature_mismatch", at=AT + 1)
bad("stale", "a second past the tolerance", "timestamp_outside_tolerance", now=AT + 301, checked=False)
bad("missing", "no signature header", "signature_missing", "")
bad("missing-time", "no timestamp header", "signature_missing", at=None)
bad("malformed-short", "63 bytes", "signature_malformed", sign()[:-2])
bad(
    "malformed-base64",
    "the signature as base64",
    "signature_malformed",
    base64.b64encode(bytes.fromhex(sign())).decode(),
)
bad("zeros", "a signature of zeros", "signature_mismatch", "0" * 128)
# S + L: the same signature to a verifier that does not reduce.
ORDER = 2**252 + 27742317777372353535851937790883648493
whole = bytes.fromhex(sign())
malleable = whole[:32] + (int.from_bytes(whole[32:], "little") + ORDER).to_bytes(32, "little")
bad(
    "malleable",
    "the right signature with its scalar raised by the group's order",
    "signature_mismatch",
    malleable.hex(),
)
vectors.write()
