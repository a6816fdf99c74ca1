"""Microsoft Teams, through a workflow that posts what it receives."""

from alerts.channels.chat import body_of, chat_kind, signature_of, title_of
from alerts.messages import Message
from common.json_bodies import JsonObject


def payload_of(message: Message, reference: str) -> JsonObject:
    """Return the message as an Adaptive Card."""
    lines = [*body_of(message).split("\n"), signature_of(message, reference)]
    title = {"type": "TextBlock", "text": title_of(message), "wrap": True}
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            {**title, "style": "heading", "weight": "Bolder", "size": "Large"},
            # A card ends a line where an empty one follows.
            {"type": "TextBlock", "text": "\n\n".join(lines), "wrap": True},
        ],
        "msteams": {"width": "full"},
    }
    if message.link:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open", "url": message.link}]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return {"type": "message", "attachments": [attachment]}


TEAMS = chat_kind(
    "Microsoft Teams",
    "The address of a workflow that starts when a webhook request is received.",
    payload_of,
)
