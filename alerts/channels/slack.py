"""Slack, and what understands its messages: Mattermost, Rocket.Chat."""

import time
from html import escape

from alerts.channels.chat import body_of, chat_kind, color_of, signature_of, title_of
from alerts.messages import Message
from common.json_bodies import JsonObject


def payload_of(message: Message, reference: str) -> JsonObject:
    """Return an attachment without blocks, which compatible servers understand too."""
    # Slack reads these three characters as markup wherever they stand: &, < and >.
    title = escape(title_of(message), quote=False)
    attachment = {
        "title": title,
        # What a notification shows.
        "fallback": title,
        "text": escape(body_of(message), quote=False),
        "color": f"#{color_of(message):06X}",
        "footer": signature_of(message, reference),
        "ts": time.time(),
        # No part is marked up, whatever a server does by default.
        "mrkdwn_in": [],
    }
    if message.link:
        attachment["title_link"] = message.link
    return {"mrkdwn": False, "attachments": [attachment]}


SLACK = chat_kind(
    "Slack",
    "An incoming webhook of Slack, Mattermost or Rocket.Chat, as the server shows it.",
    payload_of,
)
