"""Slack, and what understands its messages: Mattermost, Rocket.Chat."""

from typing import Any, Final

from apprise import NotifyFormat
from apprise.plugins.slack import NotifySlack

from alerts.channels.chat import asset_of, body_of, chat_kind, color_of, title_of
from alerts.messages import Message

# Parts of Slack's own address, which is not where the message goes.
UNUSED: Final = {"token_a": "T00000000", "token_b": "B00000000", "token_c": "0" * 24}


class _Written(NotifySlack):  # type: ignore[no-untyped-call]
    """Keeps what it would post."""

    payload: dict[str, Any]

    def _send(self, url: str, payload: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        self.payload = payload
        return payload


def payload_of(message: Message, reference: str) -> dict[str, Any]:
    """The message as an attachment without blocks, which compatible servers understand too."""
    writer = _Written(  # type: ignore[no-untyped-call]
        **UNUSED,
        use_blocks=False,
        include_image=False,
        asset=asset_of(message, reference),
    )
    title = title_of(message)
    body = writer.dialect_convert(body_of(message), NotifyFormat.TEXT)
    writer.send(  # type: ignore[no-untyped-call]
        body, title, color_of(message), body_format=NotifyFormat.TEXT
    )
    attachment = writer.payload["attachments"][0]
    # What a notification shows, and the title's link.
    attachment["fallback"] = attachment["title"]
    if message.link:
        attachment["title_link"] = message.link
    # Nothing of it is marked up, in whatever way a server reads it by default.
    attachment["mrkdwn_in"] = []
    return writer.payload


SLACK = chat_kind(
    "Slack",
    "An incoming webhook of Slack, Mattermost or Rocket.Chat, as the server shows it.",
    payload_of,
)
