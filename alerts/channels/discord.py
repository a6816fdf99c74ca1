"""Discord."""

from typing import Any

from apprise.plugins.discord import NotifyDiscord

from alerts.channels.chat import asset_of, body_of, chat_kind, color_of, title_of
from alerts.messages import Message


class _Written(NotifyDiscord):  # type: ignore[no-untyped-call]
    """Keeps what it would post."""

    payload: dict[str, Any]

    def _send(self, payload: dict[str, Any], *_: Any, **__: Any) -> bool:
        self.payload = payload
        return True


def payload_of(message: Message, reference: str) -> dict[str, Any]:
    """The message as one embed, which mentions nobody."""
    # The identity and the token are parts of Discord's own address, which is not used.
    writer = _Written(
        webhook_id="0" * 10,
        webhook_token="0" * 64,
        format="markdown",  # what apprise writes as an embed
        avatar=False,
        footer=False,
        fields=False,
        include_image=False,
        href=message.link or None,
        asset=asset_of(message, reference),
    )
    writer.send(body_of(message), title_of(message), color_of(message))
    writer.payload["embeds"][0]["author"].pop("url", None)
    writer.payload["allowed_mentions"] = {"parse": []}
    return writer.payload


DISCORD = chat_kind(
    "Discord", "The address of a webhook, from the settings of the channel in Discord.", payload_of
)
