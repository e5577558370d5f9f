"""Docusign. Python's hmac signs, and @hookflo/tern verifies."""

import base64

from book import JSON, Book, compact, hmac_sha256, identity, rejected, sha256
from tern import Checks

KEY = "made-up+connect/key+of+docusign/0123456789abcdef="
OTHER = "another+made-up/connect+key="
NOW = 1796040000
HEADER = "X-DocuSign-Signature-1"
BOOK = Book("docusign", [KEY], NOW, "hmac-sha256")
CHECKS = Checks(algorithm="hmac-sha256", headerName="x-docusign-signature-1", headerFormat="raw", payloadFormat="raw",
                customConfig={"encoding": "base64", "secretEncoding": "utf8"})


def signature(raw, key=KEY):
    """A header's value."""
    made = base64.b64encode(hmac_sha256(key, raw)).decode()
    CHECKS.add([[HEADER, made]], raw, key, NOW)
    return made


def signed(raw, *keys, kind="application/json; charset=utf-8"):
    """The headers of a delivery that these keys signed, in order."""
    numbered = [[f"X-DocuSign-Signature-{at}", signature(raw, key)] for at, key in enumerate(keys, 1)]
    return [["Content-Type", kind], ["X-Authorization-Digest", "HMACSHA256"],
            ["X-DocuSign-AccountId", ACCOUNT], *numbered]


def headers(raw, key=KEY):
    """The headers of a delivery that one key signed."""
    return signed(raw, key)


ACCOUNT = "24dfce13-9dce-4aa0-ba12-da5389bb9d8a"
ENVELOPE = "a70a5ef2-12c4-4aaf-84c5-b84134dce420"
USER = "8c531060-928e-471d-9cac-b829f616b0bf"
TIME = "2026-11-30T11:59:50.4233752Z"
TENANT = ("account", ACCOUNT)


def message(event, retries=0, **data):
    """A body."""
    return compact(event=event, apiVersion="v2.1",
                   uri=f"/restapi/v2.1/accounts/{ACCOUNT}/envelopes/{ENVELOPE}", retryCount=retries,
                   configurationId=21752918, generatedDateTime=TIME,
                   data={"accountId": ACCOUNT, "userId": USER, **data})


def derived(event, envelope=ENVELOPE, template=None, recipient=None, time=TIME):
    """An event's id."""
    return identity("docusign", event, envelope, template, recipient, time)


SUMMARY = {"status": "completed", "emailSubject": "Bitte unterschreiben: Vertrag für Größe"}
completed = message("envelope-completed", envelopeId=ENVELOPE, envelopeSummary=SUMMARY)
done = BOOK.accepted("docusign.envelope_completed", "envelope-completed", derived("envelope-completed"),
                     subject=("envelope", ENVELOPE), time=TIME, tenant=TENANT, status=(None, "completed"),
                     related=[("user", USER)])
BOOK.add("ok-envelope", "an envelope was completed", headers(completed), completed, done)
BOOK.add("ok-second-secret", "the second key of a source signed", headers(completed, OTHER), completed, done,
         secrets=[KEY, OTHER])
BOOK.add("ok-second-header", "the account has two keys: the second header is of the source's key",
         signed(completed, OTHER, KEY), completed, done)
BOOK.add("ok-first-header", "the account has two keys: the first header is of the source's key",
         signed(completed, KEY, OTHER), completed, done)
BOOK.add("ok-seventh-header", "the account has seven keys", signed(completed, *[OTHER] * 6, KEY), completed, done)
BOOK.add("ok-gap", "only the third header is there",
         [["Content-Type", "application/json"], ["X-DocuSign-Signature-3", signature(completed)]], completed, done)
BOOK.add("ok-broken-header", "a broken first header beside a good second one",
         [["Content-Type", "application/json"], [HEADER, "%%%"], ["X-DocuSign-Signature-2", signature(completed)]],
         completed, done)
again = message("envelope-completed", 3, envelopeId=ENVELOPE, envelopeSummary=SUMMARY)
BOOK.add("ok-repeated", "the third repeat of an event has the same id", headers(again), again, done)
signer = message("recipient-completed", envelopeId=ENVELOPE, recipientId="2")
BOOK.add("ok-recipient", "a recipient signed", headers(signer), signer, BOOK.accepted(
    "docusign.recipient_completed", "recipient-completed", derived("recipient-completed", recipient="2"),
    subject=("envelope", ENVELOPE), time=TIME, tenant=TENANT, related=[("recipient", "2"), ("user", USER)]))
template = message("template-created", templateId="c0ffee00-1234-4abc-8def-0123456789ab")
BOOK.add("ok-template", "a template was made: no envelope", headers(template), template, BOOK.accepted(
    "docusign.template_created", "template-created",
    derived("template-created", envelope=None, template="c0ffee00-1234-4abc-8def-0123456789ab"), time=TIME,
    tenant=TENANT, related=[("template", "c0ffee00-1234-4abc-8def-0123456789ab"), ("user", USER)]))
nameless = compact(generatedDateTime=TIME, data={"accountId": ACCOUNT, "envelopeId": ENVELOPE})
BOOK.add("unnamed-event", "an event without a type", headers(nameless), nameless, BOOK.accepted(
    "unmapped.unnamed", None, derived(None), subject=("envelope", ENVELOPE), time=TIME, tenant=TENANT))
XML = ('<?xml version="1.0" encoding="utf-8"?><DocuSignEnvelopeInformation><EnvelopeStatus><EnvelopeID>'
       f"{ENVELOPE}</EnvelopeID></EnvelopeStatus></DocuSignEnvelopeInformation>").encode()
BOOK.add("unreadable-xml", "a message as XML", signed(XML, KEY, kind="text/xml; charset=utf-8"), XML,
         BOOK.accepted("unmapped.unreadable", None, identity("docusign", sha256(XML))))

BOOK.refuse(headers, completed, OTHER, HEADER, {
    "no-base64": "%%%", "hex": hmac_sha256(KEY, completed).hex(),
    "short-digest": base64.b64encode(hmac_sha256(KEY, completed)[:31]).decode()})
BOOK.add("refused-two-wrong", "two headers of other keys", signed(completed, OTHER, OTHER + "x"), completed,
         rejected("signature_mismatch"))
BOOK.add("refused-digest-header", "the header that names the algorithm is no signature",
         [JSON, ["X-Authorization-Digest", "HMACSHA256"]], completed, rejected("signature_missing"))
CHECKS.run()
BOOK.save()
