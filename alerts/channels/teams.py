"""Microsoft Teams, by way of a workflow that posts what it receives."""

from typing import Any

from apprise.plugins.workflows import NotifyWorkflows

from alerts.channels.chat import asset_of, body_of, chat_kind, color_of, title_of
from alerts.channels.wording import mark
from alerts.messages import Message


def payload_of(message: Message, reference: str) -> dict[str, Any]:
    """The message as an adaptive card."""
    # Workflow, signature and host are parts of Microsoft's own address, which is not used.
    writer = NotifyWorkflows(  # type: ignore[no-untyped-call]
        workflow="0",
        signature="0",
        host="localhost",
        include_image=False,
        asset=asset_of(message, reference),
    )
    # A card shows an empty line where a line shall end.
    body = "\n\n".join([*body_of(message).split("\n"), f"Spendgate {mark(message, reference)}"])
    payload: dict[str, Any] = writer.gen_payload(  # type: ignore[no-untyped-call]
        body, title_of(message), color_of(message)
    )
    card = payload["attachments"][0]["content"]
    card["body"][0]["wrap"] = True
    if message.link:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open", "url": message.link}]
    return payload


TEAMS = chat_kind(
    "Microsoft Teams",
    "The address of a workflow that starts when a webhook request is received.",
    payload_of,
)
