"""What the instrumentations of the captured runs do not tell, so that nobody can know it.

Everything else must be stored as the provider served it.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Untold(NamedTuple):
    """Calls of a run, by the end of the provider's response id, and what is told of them instead.

    `instead` holds the fields of `truth`; None means that nothing is told at all. No `ends` means
    every call of the run.
    """

    ends: tuple[str, ...]
    instead: Mapping[str, object] | None
    reason: str


# A stream without usage: it is counted, without tokens, and has no cost.
NO_USAGE: Final[Mapping[str, object]] = {
    "input": 0, "output": 0, "cr": 0, "cw": 0, "reasoning": 0, "is_priced": False,
}  # fmt: skip
NO_INCLUDE_USAGE: Final = "The client did not ask the stream for its usage (include_usage)."
REQUESTED_ONLY: Final = "LiteLLM names the model that was asked for, not the one that answered."

UNTOLD: Final[Mapping[str, tuple[Untold, ...]]] = {
    "python-otel/oai-v2b": (
        Untold(("dbfb57e5",), None, "openai-v2 2.4b0 makes no span for `parse`."),
        Untold(("7766e68f", "0e14e39b"), None, "openai-v2 2.4b0 makes no span for Responses."),
        Untold(("2ed99f5c", "c65964c5", "914c5cc5"), NO_USAGE, NO_INCLUDE_USAGE),
        Untold(("bad6e64c",), {"cr": 0}, "openai-v2 2.4b0 does not tell cached input."),
        Untold(("dceb842a",), {"reasoning": 0}, "openai-v2 2.4b0 does not tell reasoning."),
    ),
    "python-otel/lc-ls": (Untold(("91adb744",), NO_USAGE, NO_INCLUDE_USAGE),),
    "python-otel/lc-oi": (Untold(("ce3b57da",), NO_USAGE, NO_INCLUDE_USAGE),),
    "python-otel/two-oib": (
        Untold(("5b94c6c6",), NO_USAGE, NO_INCLUDE_USAGE),
        Untold(
            ("f8aa497f",),
            {"output": 1},
            "The stream was broken off: OpenInference tells the one token of its beginning.",
        ),
    ),
    "gemini-cli/gm-answered-200": (
        Untold((), NO_USAGE, "Gemini CLI's spans of streams have no usage; its logs have."),
    ),
    "litellm/ll-gen": (
        Untold(("ad86b057",), NO_USAGE, NO_INCLUDE_USAGE),
        Untold(("8bbdc6aa", "dd2c02079"), {"model": "claude-sonnet-4-5"}, REQUESTED_ONLY),
    ),
}
