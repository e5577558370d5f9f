"""SendGrid. cryptography signs (its library only verifies), and sendgrid verifies."""

import base64
import importlib
import json
import sys

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

# This file has the library's name.
sys.path.append(sys.path.pop(0))
EventWebhook = importlib.import_module("sendgrid.helpers.eventwebhook").EventWebhook

from book import JSON, Book, identity, rejected, sha256


def public(key):
    """A public key as SendGrid shows it."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


KEY = ec.derive_private_key(20261130, ec.SECP256R1())
OTHER = ec.derive_private_key(20261201, ec.SECP256R1())
NOW = 1796040000
SIGNATURE = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP = "X-Twilio-Email-Event-Webhook-Timestamp"
BOOK = Book("sendgrid", [public(KEY)], NOW, "ecdsa-p256-sha256")


def headers(raw, key=KEY, at=NOW):
    """The headers of a delivery, checked by sendgrid."""
    algorithm = ec.ECDSA(SHA256(), deterministic_signing=True)
    signature = base64.b64encode(key.sign(str(at).encode() + raw, algorithm)).decode()
    assert EventWebhook(public(key)).verify_signature(raw.decode(), signature, str(at))
    return [JSON, [SIGNATURE, signature], [TIMESTAMP, str(at)]]


def raw(*elements):
    """A body as SendGrid writes it: each event ends with CR and LF."""
    return b"[" + b",\r\n".join(elements) + b"]\r\n"


def element(**fields):
    """An event's bytes."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


MESSAGE = "LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0"
delivered = element(email="ada@example.com", timestamp=1796039990, event="delivered", response="250 OK",
                    sg_event_id="ZGVsaXZlcmVkLTAtMQ", sg_message_id=MESSAGE)
was_delivered = BOOK.event("sendgrid.delivered", "delivered", "ZGVsaXZlcmVkLTAtMQ",
                           subject=("message", MESSAGE), time="2026-11-30T11:59:50Z")
opened = element(email="ada@example.com", timestamp=1796039995, event="open", ip="203.0.113.7",
                 useragent="Müller/1.0", sg_event_id="b3Blbi0wLTE", sg_message_id=MESSAGE)
was_opened = BOOK.event("sendgrid.open", "open", "b3Blbi0wLTE", subject=("message", MESSAGE),
                        time="2026-11-30T11:59:55Z")
one, two = raw(delivered), raw(delivered, opened)

BOOK.add("ok-one", "one event", headers(one), one, BOOK.accepted_all(was_delivered))
BOOK.add("ok-two", "two events of one message, in order", headers(two), two,
         BOOK.accepted_all(was_delivered, was_opened))
BOOK.add("ok-second-secret", "the second key of a source signed", headers(one, OTHER), one,
         BOOK.accepted_all(was_delivered), secrets=[public(KEY), public(OTHER)])
account = raw(element(event="account_status_change", type="compliance_suspend", timestamp=1796039980,
                      sg_event_id="YWNjb3VudC0x"))
BOOK.add("ok-account", "an event of the account is about no message", headers(account), account,
         BOOK.accepted_all(BOOK.event("sendgrid.account_status_change", "account_status_change", "YWNjb3VudC0x",
                                      time="2026-11-30T11:59:40Z")))
no_id = element(event="click", timestamp=1796039980, url="https://example.com/", sg_message_id=MESSAGE)
BOOK.add("ok-no-id", "an event without an id has one from its bytes", headers(raw(no_id)), raw(no_id),
         BOOK.accepted_all(BOOK.event("sendgrid.click", "click", identity("sendgrid", "click", sha256(no_id)),
                                      subject=("message", MESSAGE), time="2026-11-30T11:59:40Z")))

nameless = raw(element(sg_event_id="bm9uZQ", timestamp=1796039990))
BOOK.add("unnamed-event", "an event without a type", headers(nameless), nameless,
         BOOK.accepted_all(BOOK.event("unmapped.unnamed", None, "bm9uZQ", time="2026-11-30T11:59:50Z")))
mixed = raw(delivered, b'"hello"')
BOOK.add("unreadable-element", "an element that is no object is an event of its own", headers(mixed), mixed,
         BOOK.accepted_all(was_delivered, BOOK.event("unmapped.unreadable", None,
                                                     identity("sendgrid", sha256(b'"hello"')))))
single = delivered
BOOK.add("unreadable-no-list", "a body that is no list", headers(single), single,
         BOOK.accepted("unmapped.unreadable", None, identity("sendgrid", sha256(single))))
BOOK.add("ignored-empty-list", "a list of nothing", headers(b"[]"), b"[]", {"status": 200, "outcome": "ignored"})

BOOK.add("refused-wrong-key", "another key signed", headers(one, OTHER), one, rejected("signature_mismatch"))
BOOK.add("refused-changed-body", "one byte changed", headers(one), one.replace(b"250 OK", b"250 Ok"),
         rejected("signature_mismatch"))
BOOK.add("refused-no-line-end", "a proxy removed the line end", headers(one), one.rstrip(),
         rejected("signature_mismatch"))
BOOK.add("refused-changed-timestamp", "another timestamp", [*headers(one)[:2], [TIMESTAMP, str(NOW - 1)]], one,
         rejected("signature_mismatch"))
BOOK.add("refused-no-signature", "no signature", [JSON, headers(one)[2]], one, rejected("signature_missing"))
BOOK.add("refused-no-timestamp", "no timestamp", headers(one)[:2], one, rejected("signature_missing"))
BOOK.add("refused-malformed", "a signature that is no base64", [JSON, [SIGNATURE, "%%%"], headers(one)[2]], one,
         rejected("signature_malformed"))
BOOK.add("refused-malformed-timestamp", "a timestamp that is no number",
         [*headers(one)[:2], [TIMESTAMP, "2026-11-30"]], one, rejected("signature_malformed"))
BOOK.add("refused-stale", "an old timestamp", headers(one, at=NOW - 3600), one,
         rejected("timestamp_outside_tolerance"))

# The two deliveries in the tests of @sendgrid/eventwebhook 8.0, with their keys and signatures.
DROPPED = (
    b'[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address",'
    b'"sg_event_id":"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",'
    b'"sg_message_id":"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0",'
    b'"smtp-id":"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>","timestamp":1600112492}]\r\n'
)
BOUNCED = (
    b'[{"email":"invalid@gmail.com","event":"processed","send_at":0,'
    b'"sg_event_id":"cHJvY2Vzc2VkLTE5OTQyMTEyLXFOd0JMZ1BRUWpXNkRKdktRd1NBYnctMA",'
    b'"sg_message_id":"qNwBLgPQQjW6DJvKQwSAbw.filterdrecv-canary-547b64655b-cw6zx-1-6089EA4A-56.0",'
    b'"smtp-id":"<qNwBLgPQQjW6DJvKQwSAbw@ismtpd0178p1mdw1.sendgrid.net>","timestamp":1619651146},\r\n'
    b'{"email":"invalid@gmail.com","event":"bounce","ip":"167.89.101.76",'
    b'"reason":"552 5.2.2 The email account that you tried to reach is over quota and inactive. Please direct the '
    b'recipient to https://support.google.com/mail/?p=OverQuotaPerm c17si1130468pgv.34 - gsmtp",'
    b'"sg_event_id":"Ym91bmNlLTAtMTk5NDIxMTItcU53QkxnUFFRalc2REp2S1F3U0Fidy0w",'
    b'"sg_message_id":"qNwBLgPQQjW6DJvKQwSAbw.filterdrecv-canary-547b64655b-cw6zx-1-6089EA4A-56.0",'
    b'"smtp-id":"<qNwBLgPQQjW6DJvKQwSAbw@ismtpd0178p1mdw1.sendgrid.net>","status":"5.2.2",'
    b'"timestamp":1619651147,"tls":1,"type":"blocked"}]\r\n'
)


def published(name, about, raw, key, signature, at, *events):
    """A published delivery."""
    assert EventWebhook(key).verify_signature(raw.decode(), signature, str(at))
    BOOK.add(name, about, [JSON, [SIGNATURE, signature], [TIMESTAMP, str(at)]], raw,
             BOOK.accepted_all(*events), now=at, secrets=[key])


published(
    "published-dropped", "one event, from the tests of SendGrid's library", DROPPED,
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eN"
    "Ec6wEA3F+g==",
    "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM=", 1600112502,
    BOOK.event("sendgrid.dropped", "dropped", "ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",
               subject=("message", MESSAGE), time="2020-09-14T19:41:32Z"),
)
BOUNCE = "qNwBLgPQQjW6DJvKQwSAbw.filterdrecv-canary-547b64655b-cw6zx-1-6089EA4A-56.0"
published(
    "published-bounce", "two events, from the tests of SendGrid's library", BOUNCED,
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEQ4LIFtWztlsF7skFqOncjD1lun4H5w8XOhyOArHW9RcIx/FfEzx6cikC/yPfUvwaX/JScE7Fc9CJ"
    "D2afQ9Ok3Q==",
    "MEYCIQC/I4o6vCgqRYrTljjoVWB/GRWNtxeePlLMHr3x9ETeRQIhAIpV+03nREPTTHWSW0wIOA0EoMPdcNgXa70yCaqDJlu5", 1619651159,
    BOOK.event("sendgrid.processed", "processed", "cHJvY2Vzc2VkLTE5OTQyMTEyLXFOd0JMZ1BRUWpXNkRKdktRd1NBYnctMA",
               subject=("message", BOUNCE), time="2021-04-28T23:05:46Z"),
    BOOK.event("sendgrid.bounce", "bounce", "Ym91bmNlLTAtMTk5NDIxMTItcU53QkxnUFFRalc2REp2S1F3U0Fidy0w",
               subject=("message", BOUNCE), time="2021-04-28T23:05:47Z"),
)
BOOK.save()
