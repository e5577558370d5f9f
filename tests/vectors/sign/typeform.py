"""Typeform. Python's hmac signs, and @hookflo/tern verifies."""

import base64

from book import JSON, Book, compact, hmac_sha256, identity, sha256
from tern import Checks

SECRET = "made-up-secret-of-typeform-0123456789"
OTHER = "another-made-up-secret-of-typeform"
NOW = 1796040000
HEADER = "Typeform-Signature"
BOOK = Book("typeform", [SECRET], NOW, "hmac-sha256")
CHECKS = Checks(algorithm="hmac-sha256", headerName="typeform-signature", headerFormat="raw", payloadFormat="raw",
                customConfig={"encoding": "base64", "secretEncoding": "utf8"})


def headers(raw, secret=SECRET):
    """The headers of a delivery."""
    digest = base64.b64encode(hmac_sha256(secret, raw)).decode()
    # It knows no prefix before base64.
    CHECKS.add([[HEADER, digest]], raw, secret, NOW)
    return [JSON, [HEADER, f"sha256={digest}"]]


RESPONSE = {
    "form_id": "lT4Z3j", "token": "a3a12ec67a1365927098a606107fac15", "landed_at": "2026-11-30T11:58:00Z",
    "submitted_at": "2026-11-30T11:59:49Z", "definition": {"id": "lT4Z3j", "title": "Kundenzufriedenheit – Größe"},
    "answers": [{"type": "boolean", "boolean": True, "field": {"id": "NRsxU591jIW9", "type": "yes_no"}}],
}
ID = "LtWXD3crgy"
response = compact(event_id=ID, event_type="form_response", form_response=RESPONSE)
answered = BOOK.accepted(
    "typeform.form_response", "form_response", ID, subject=("response", "a3a12ec67a1365927098a606107fac15"),
    time="2026-11-30T11:59:49Z", related=[("form", "lT4Z3j")])
BOOK.add("ok-response", "a form was answered", headers(response), response, answered)
BOOK.add("ok-second-secret", "the second secret of a source signed", headers(response, OTHER), response, answered,
         secrets=[SECRET, OTHER])
partial = compact(event_id="01HPARTIAL", event_type="form_response_partial", form_response={
    "form_id": "lT4Z3j", "token": "b7c8d9e0f1a2", "landed_at": "2026-11-30T11:58:00Z"})
BOOK.add("ok-partial", "a response that is not complete has no time", headers(partial), partial, BOOK.accepted(
    "typeform.form_response_partial", "form_response_partial", "01HPARTIAL", subject=("response", "b7c8d9e0f1a2"),
    related=[("form", "lT4Z3j")]))
no_id = compact(event_type="form_response", form_response={"form_id": "lT4Z3j"})
BOOK.add("ok-no-id", "an event without an id has one from its type and bytes, and no subject", headers(no_id), no_id,
         BOOK.accepted("typeform.form_response", "form_response",
                       identity("typeform", "form_response", sha256(no_id)), related=[("form", "lT4Z3j")]))
nameless = compact(event_id=ID, form_response=RESPONSE)
BOOK.add("unnamed-event", "an event without a type", headers(nameless), nameless, BOOK.accepted(
    "unmapped.unnamed", None, ID, subject=("response", "a3a12ec67a1365927098a606107fac15"),
    time="2026-11-30T11:59:49Z", related=[("form", "lT4Z3j")]))
BOOK.add("unreadable-text", "a body that is no JSON", headers(b"hello"), b"hello",
         BOOK.accepted("unmapped.unreadable", None, identity("typeform", sha256(b"hello"))))

DIGEST = hmac_sha256(SECRET, response)
BOOK.refuse(headers, response, OTHER, HEADER, {
    "no-prefix": base64.b64encode(DIGEST).decode(), "hex": "sha256=" + DIGEST.hex(),
    "other-prefix": "sha1=" + base64.b64encode(DIGEST).decode(),
    "short-digest": "sha256=" + base64.b64encode(DIGEST[:31]).decode()})
CHECKS.run()
BOOK.save()
