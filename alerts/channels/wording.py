"""The text of a message for people. Pure.

Titles and values come from events, so anyone who can send one chooses them. `inert` keeps a text
from being markup in chats: no mention of everyone, no link whose text is another address, no image
that reports when it was seen.
"""

import re
from typing import Final

from alerts.messages import Message

# Control characters, and those that turn the direction of writing and so hide what is written.
UNPRINTABLE: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)
# Nothing to see, and nothing a parser of markup looks through.
BREAK: Final = "\u200b"
# There is no escape that all chats know; these look the same and mean nothing.
INERT: Final = str.maketrans(
    {
        "*": "\u2217",
        "`": "\u02cb",
        "~": "\u223c",
        "|": "\u2223",
        "\\": "\u2216",
        "_": f"{BREAK}_",
        "@": f"@{BREAK}",
        "<": f"<{BREAK}",
        "]": f"]{BREAK}",
    }
)
# A heading, a quotation or a list, if a line begins with it.
LINE_MARK: Final = re.compile(r"^([#>+-]|\d+[.)])")
LABEL_BY_EVENT: Final = {
    "updated": "Still open",
    "acknowledged": "Acknowledged",
    "resolved": "Resolved",
    "test": "Test",
}


def plain(text: str) -> str:
    """Return one line of text, without invisible characters."""
    return " ".join(UNPRINTABLE.sub(" ", text).split())


def inert(text: str) -> str:
    """Return one line that no chat takes for markup or a mention."""
    return LINE_MARK.sub(rf"{BREAK}\1", plain(text).translate(INERT))


def cut(text: str, characters: int) -> str:
    """Return at most this many characters; an ellipsis stands for the rest."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def headline(message: Message) -> str:
    """Say in one line what happened."""
    if message.event in {"digest", "report"}:
        return plain(message.title)
    if message.event == "escalated":
        return plain(f"Now {message.severity}: {message.title}")
    label = LABEL_BY_EVENT.get(message.event, message.severity.title())
    if message.event == "updated" and message.kind == "crossing":
        # Its next level: still ongoing, but worse than before.
        label = message.severity.title()
    return plain(f"{label}: {message.title}")


def mark(message: Message, reference: str) -> str:
    """Return what people recognize a message by that reaches them twice."""
    short = reference.replace("-", "")[:6]
    return short if message.incident is None else f"#{message.incident} · {short}"


def body_lines(message: Message) -> list[str]:
    """Return the message below its headline, as lines of plain text."""
    return [
        plain(message.summary),
        *(plain(f"{label}: {text}") for label, text in message.facts),
        *(plain(f"{line.severity.title()}, {line.status}: {line.title}") for line in message.lines),
    ]
