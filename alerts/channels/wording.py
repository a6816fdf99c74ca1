"""A message in words for people. Pure.

Titles and values come from events, so anybody who can send one chooses them. `inert` makes a text
mean nothing to the markup of chats: no mention of everybody, no link that says another thing than
it leads to, no picture that tells when it was seen.
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
# A heading, a quotation or a list, where a line begins with it.
LINE_MARK: Final = re.compile(r"^([#>+-]|\d+[.)])")
WORDS_BY_EVENT: Final = {
    "updated": "Still open",
    "acknowledged": "Acknowledged",
    "resolved": "Resolved",
    "test": "Test",
}


def plain(text: str) -> str:
    """One line of text, without what cannot be seen."""
    return " ".join(UNPRINTABLE.sub(" ", text).split())


def inert(text: str) -> str:
    """One line that no chat takes for markup or a mention."""
    return LINE_MARK.sub(rf"{BREAK}\1", plain(text).translate(INERT))


def cut(text: str, characters: int) -> str:
    """At most so many characters; where some are missing, the last one says so."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def headline(message: Message) -> str:
    """What happened, in one line."""
    if message.event == "digest":
        return plain(message.title)
    if message.event == "escalated":
        return plain(f"Now {message.severity}: {message.title}")
    words = WORDS_BY_EVENT.get(message.event, message.severity.title())
    if message.event == "updated" and message.kind == "crossing":
        # Its next level: it goes on, but not as before.
        words = message.severity.title()
    return plain(f"{words}: {message.title}")


def mark(message: Message, reference: str) -> str:
    """By which people recognise a message that reaches them twice."""
    short = reference.replace("-", "")[:6]
    return short if message.incident is None else f"#{message.incident} · {short}"


def body_lines(message: Message) -> list[str]:
    """The message below its headline, as lines of plain text."""
    return [
        plain(message.summary),
        *(plain(f"{words}: {text}") for words, text in message.facts),
        *(plain(f"{one.severity.title()}, {one.status}: {one.title}") for one in message.lines),
    ]
