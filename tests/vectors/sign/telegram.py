"""Telegram. aiogram says whether a token is right; nothing is signed."""

import json

from aiogram.types import Update
from aiogram.webhook.aiohttp_server import SimpleRequestHandler

from book import JSON, Book, identity, rejected, sha256

TOKEN = "made-up_secret-token_for-telegram"
HEADER = "X-Telegram-Bot-Api-Secret-Token"
BOOK = Book("telegram", [TOKEN], 1796040000, "shared-secret")
CHAT = {"id": -1001234567890, "type": "supergroup", "title": "Orders"}
USER = {"id": 987654321, "is_bot": False, "first_name": "Ada"}


def raw(update):
    """An update as Telegram writes it, read by aiogram first."""
    Update.model_validate(update)
    return json.dumps(update, separators=(",", ":"), ensure_ascii=False).encode()


def headers(token=TOKEN):
    """Headers with a token, which aiogram compares."""
    right = SimpleRequestHandler(None, None, secret_token=TOKEN).verify_secret(token, None)
    assert right == (token == TOKEN)
    return [JSON, [HEADER, token]]


NEXT = "made-up_next-token_for-telegram"
MESSAGE = {"message_id": 17, "from": USER, "chat": CHAT, "date": 1796039999, "text": "Grüße 👋"}

update = {"update_id": 480220017, "message": MESSAGE}
message = BOOK.accepted(
    "telegram.message", "message", "480220017",
    subject=("chat", "-1001234567890"), time="2026-11-30T11:59:59Z", related=[("user", "987654321")],
)
BOOK.add("ok-message", "a message in a group", headers(), raw(update), message)
BOOK.add("ok-second-secret", "the second secret of a source is sent", headers(NEXT), raw(update), message,
         secrets=[TOKEN, NEXT])

BOOK.add("ok-edited-message", "an edited message: its chat is a related entity", headers(),
         raw({"update_id": 480220018, "edited_message": {**MESSAGE, "edit_date": 1796039999}}),
         BOOK.accepted("telegram.edited_message", "edited_message", "480220018",
                       related=[("chat", "-1001234567890"), ("user", "987654321")]))
BOOK.add("ok-callback-query", "a button was pressed", headers(),
         raw({"update_id": 480220019, "callback_query": {
             "id": "4242424242", "from": USER, "chat_instance": "-77", "data": "accept", "message": MESSAGE}}),
         BOOK.accepted("telegram.callback_query", "callback_query", "480220019",
                       related=[("chat", "-1001234567890"), ("user", "987654321")]))
BOOK.add("ok-my-chat-member", "the bot was added to a chat", headers(),
         raw({"update_id": 480220020, "my_chat_member": {
             "chat": CHAT, "from": USER, "date": 1796039999,
             "old_chat_member": {"status": "left", "user": USER},
             "new_chat_member": {"status": "member", "user": USER}}}),
         BOOK.accepted("telegram.my_chat_member", "my_chat_member", "480220020",
                       related=[("chat", "-1001234567890")]))
BOOK.add("ok-poll", "an update about no chat", headers(),
         raw({"update_id": 480220021, "poll": {
             "id": "5310", "question": "Ready?", "options": [], "total_voter_count": 0, "is_closed": False,
             "is_anonymous": True, "type": "regular", "allows_multiple_answers": False,
             "allows_revoting": False, "members_only": False}}),
         BOOK.accepted("telegram.poll", "poll", "480220021", related=[("poll", "5310")]))
BOOK.add("ok-private-chat", "a message to the bot alone, with a positive id",
         headers(), raw({"update_id": 480220022, "message": {
             **MESSAGE, "chat": {"id": 987654321, "type": "private", "first_name": "Ada"}}}),
         BOOK.accepted("telegram.message", "message", "480220022", subject=("chat", "987654321"),
                       time="2026-11-30T11:59:59Z", related=[("user", "987654321")]))

unknown = b'{"update_id":480220023,"hologram":{"id":"1"}}'
BOOK.add("unnamed-kind", "an update of a kind that nobody knows", headers(), unknown,
         BOOK.accepted("unmapped.unnamed", None, "480220023"))
BOOK.add("unnamed-no-id", "an update with neither kind nor id", headers(), b"{}",
         BOOK.accepted("unmapped.unnamed", None, identity("telegram", None, sha256(b"{}"))))
BOOK.add("unreadable-text", "a body that is no JSON", headers(), b"hello",
         BOOK.accepted("unmapped.unreadable", None, identity("telegram", sha256(b"hello"))))

BOOK.add("refused-wrong-token", "another token", headers(TOKEN + "x"), raw(update), rejected("signature_mismatch"))
BOOK.add("refused-token-case", "the token in capitals", headers(TOKEN.upper()), raw(update),
         rejected("signature_mismatch"))
BOOK.add("refused-token-prefix", "the token without its end", headers(TOKEN[:-1]), raw(update),
         rejected("signature_mismatch"))
BOOK.add("refused-no-token", "no token", [JSON], raw(update), rejected("signature_missing"))
BOOK.add("refused-get", "a GET", headers(), b"", rejected("method_not_allowed", 405), method="GET")
BOOK.save()
