"""Discord."""

from alerts.channels.chat import body_of, chat_kind, color_of, signature_of, title_of
from alerts.messages import Message
from common.json_bodies import JsonObject


def payload_of(message: Message, reference: str) -> JsonObject:
    """Return the message as one embed, which mentions no one."""
    embed = {
        "author": {"name": signature_of(message, reference)},
        "title": title_of(message),
        "description": body_of(message),
        "color": color_of(message),
    }
    if message.link:
        embed["url"] = message.link
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}


DISCORD = chat_kind(
    "Discord", "The address of a webhook, from the settings of the channel in Discord.", payload_of
)
