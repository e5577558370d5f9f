"""Meta: signed by Python's hmac, and verified by pywa."""

import hmac

from pywa.utils import webhook_updates_validator

from expected import Provider, accepted, body_id, compact, event, handshake, listed, rejected, unreadable_id

NAME = "meta"
SECRET = "made-up-app-secret-0123456789abcdef"
TOKEN = "meatyhamhock & more"
NOW = 1764500000


def sign(raw, secret=SECRET):
    signature = "sha256=" + hmac.new(secret.encode(), raw, "sha256").hexdigest()
    assert webhook_updates_validator(secret, raw, signature)
    return signature


def headers(signature):
    named = {"accept": "*/*", "user-agent": "facebookexternalua", "content-type": "application/json"}
    return named | ({"x-hub-signature-256": signature} if signature else {})


def message(text="hi", own_id="wamid.HBgLMADEUP1=="):
    return compact(
        {
            "value": {
                "messaging_product": "whatsapp",
                "metadata": {"display_phone_number": "15550783881", "phone_number_id": "106540352242922"},
                "contacts": [{"profile": {"name": "Sheena"}, "wa_id": "16505551234"}],
                "messages": [
                    {
                        "from": "16505551234",
                        "id": own_id,
                        "timestamp": "1764499990",
                        "type": "text",
                        "text": {"body": text},
                    }
                ],
            },
            "field": "messages",
        }
    )


def delivery(kind, *entries):
    """An entry is a list of changes."""
    of = b",".join(b'{"id":"102290129340398","changes":[' + b",".join(changes) + b"]}" for changes in entries)
    return b'{"object":"' + kind.encode() + b'","entry":[' + of + b"]}"


def made(kind, element, **entities):
    return event(NAME, kind, body_id(NAME, kind, element), "hmac-sha256", **entities)


def said(element, own_id="wamid.HBgLMADEUP1=="):
    return made(
        "whatsapp_business_account.messages",
        element,
        subject=("phone_number", "106540352242922"),
        related=[("contact", "16505551234"), ("message", own_id)],
    )


vectors = Provider(NAME, secrets=[SECRET], handshake_token=TOKEN)
WHATSAPP = "whatsapp_business_account"
BODY = delivery(WHATSAPP, [message()])


def good(name, about, raw, expect, signature=None, theme="accepted", **source):
    vectors.add(theme, name, about, headers(signature or sign(raw)), raw, expect, now=NOW, **source)


def bad(name, about, reason, signature=None, raw=BODY, sent=None, **source):
    sent = sent or headers(sign(BODY) if signature is None else signature)
    vectors.add("rejected", name, about, sent, raw, rejected(reason), now=NOW, **source)


good("ok", "a message to a WhatsApp number", BODY, listed(said(message())))
# Meta writes letters beyond ASCII as escapes, and signs those.
ESCAPED = message().replace(b'"hi"', rb'"sch\u00f6n \ud83d\udc4b <3 \/"')
good("escaped", "escapes as Meta writes them", delivery(WHATSAPP, [ESCAPED]), listed(said(ESCAPED)))
SECOND = message("two", "wamid.HBgLMADEUP2==")
STATUS = compact(
    {
        "value": {
            "metadata": {"phone_number_id": "106540352242922"},
            "statuses": [{"id": "wamid.HBgLMADEUP3==", "status": "delivered", "recipient_id": "16505551234"}],
        },
        "field": "messages",
    }
)
DELIVERED = made(
    "whatsapp_business_account.messages",
    STATUS,
    subject=("phone_number", "106540352242922"),
    related=[("contact", "16505551234"), ("message", "wamid.HBgLMADEUP3==")],
)
good(
    "several",
    "two entries, three changes: three events in their order",
    delivery(WHATSAPP, [message(), SECOND], [STATUS]),
    listed(said(message()), said(SECOND, "wamid.HBgLMADEUP2=="), DELIVERED),
)
COMMENT = compact(
    {
        "field": "feed",
        "value": {
            "item": "comment",
            "verb": "add",
            "post_id": "44444444_444444444",
            "comment_id": "4_5",
            "created_time": 1764499990,
            "from": {"id": "1067280970047460", "name": "Kai"},
        },
    }
)
good(
    "page",
    "a comment on a page",
    delivery("page", [COMMENT]),
    listed(
        made(
            "page.feed.comment.add",
            COMMENT,
            time="2025-11-30T10:53:10Z",
            related=[("post", "44444444_444444444"), ("user", "1067280970047460")],
        )
    ),
)
PHOTOS = b'{"field":"photos","value":{"verb":"update","object_id":"10211885744794461"}}'
good("user", "photos of a user", delivery("user", [PHOTOS]), listed(made("user.photos.update", PHOTOS)))
BLANKS = b'{ "field" : "photos" }'
good(
    "bytes",
    "an element's identity is over its bytes, blanks too",
    delivery("user", [BLANKS]),
    listed(made("user.photos", BLANKS)),
)
NAMELESS = b'{"entry":[{"changes":[{"value":{}}]}]}'
good("no-type", "neither object nor field", NAMELESS, listed(made(None, b'{"value":{}}')))
TEXT = event(NAME, None, unreadable_id(NAME, b'"x"'), "hmac-sha256", type="unmapped.unreadable")
good(
    "element-text",
    "an element that is no object, beside one that is",
    delivery("user", [b'"x"', PHOTOS]),
    listed(TEXT, made("user.photos.update", PHOTOS)),
)
good("empty", "no changes", delivery("user", []), {"status": 200, "outcome": "ignored"})
MESSENGER = b'{"object":"page","entry":[{"id":"1","time":1764499990,"messaging":[{"sender":{"id":"2"},"message":{"mid":"m_1"}}]}]}'
good(
    "messaging",
    "a Messenger message has no changes: it is forwarded whole",
    MESSENGER,
    accepted(event(NAME, None, unreadable_id(NAME, MESSENGER), "hmac-sha256", type="unmapped.unreadable")),
)
good(
    "rotation", "the second of two secrets", BODY, listed(said(message())), secrets=["made-up-newer-app-secret", SECRET]
)

# The handshake.
ASKED = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meatyhamhock%20%26%20more"


def ask(name, about, query, expect):
    vectors.add("handshake", name, about, {"accept": "*/*"}, b"", expect, now=NOW, method="GET", query=query)


PLAIN = [["x-content-type-options", "nosniff"]]
refused = lambda status: rejected("handshake_invalid", status)
ask("handshake", "the challenge is sent back", ASKED, handshake("1158201444", headers=PLAIN))
ask(
    "handshake-decoded",
    "a challenge with percent escapes is decoded",
    ASKED.replace("1158201444", "a%3Cb%3E%25"),
    handshake("a<b>%", headers=PLAIN),
)
ask("handshake-other-token", "another token", ASKED.replace("meaty", "salty"), refused(403))
ask("handshake-no-token", "no token", ASKED.split("&hub.verify")[0], refused(403))
ask("handshake-token-twice", "a token that comes twice counts as absent", ASKED + "&hub.verify_token=x", refused(403))
ask("handshake-no-challenge", "no challenge", ASKED.replace("hub.challenge=1158201444&", ""), refused(400))
ask("handshake-long", "a challenge over 1 KiB", ASKED.replace("1158201444", "1" * 1025), refused(400))
ask("handshake-nothing", "a GET of somebody else", "", refused(400))

bad("other-secret", "the secret of another app", "signature_mismatch", secrets=["made-up-other-app-secret"])
bad("changed", "one changed body byte", "signature_mismatch", raw=BODY.replace(b'"hi"', b'"Hi"'))
bad(
    "unescaped",
    "the same JSON with letters instead of escapes",
    "signature_mismatch",
    sign(delivery(WHATSAPP, [ESCAPED])),
    delivery(WHATSAPP, [ESCAPED.replace(rb"\u00f6", "ö".encode())]),
)
bad("missing", "no signature header", "signature_missing", "")
bad("malformed", "a signature without its prefix", "signature_malformed", sign(BODY)[7:])
bad("malformed-short", "63 hex digits", "signature_malformed", sign(BODY)[:-1])
bad(
    "sha1-only", "the old header alone", "signature_missing", sent=headers("") | {"x-hub-signature": "sha1=" + "0" * 40}
)
vectors.write()
