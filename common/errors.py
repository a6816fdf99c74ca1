"""What metering refuses, as small exceptions. `common.api.problems` maps them to HTTP."""

from dataclasses import dataclass
from typing import Any, Final, TypeVar

from django.core.exceptions import ValidationError

# A refusal quotes what it refuses, and what it refuses may be as long as a body.
DETAIL_CHARACTERS_MAX: Final = 500
QUOTED_CHARACTERS_MAX: Final = 200
Error = TypeVar("Error", bound=BaseException)


def without_frames(error: Error) -> Error:
    """An error to keep, or to raise in another thread: without the frames that it and its causes
    came through, which hold what they worked on, such as a whole body, until Python looks for
    cycles.
    """
    link: BaseException | None = error
    while link is not None and link.__traceback__ is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


class MeteringError(Exception):
    """Something a caller asked for was refused. `code` is stable; `detail` is a sentence for
    people.
    """

    code = "refused"

    def __init__(self, detail: str, **members: Any) -> None:
        self.detail = shortened(detail)
        super().__init__(self.detail)
        self.members = members


class MalformedBody(MeteringError):
    """The body as a whole cannot be read. Nothing of it was taken."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class TooManyEvents(MeteringError):
    """More events in one body, or more of what holds them, than the contract allows. `count` is
    None where counting stopped early.
    """

    code = "too_many_events"

    def __init__(
        self, count: int | None = None, *, what: str = "events", most: int = 10_000
    ) -> None:
        number = f"more than {most:,}" if count is None else f"{count:,}"
        super().__init__(f"The body holds {number} {what}; send at most {most:,} in one body.")


class NotFound(MeteringError):
    """There is no such object in this tenant."""

    code = "not_found"

    @classmethod
    def of(cls, noun: str, row_id: object) -> "NotFound":
        """Return the refusal of an id."""
        return cls(f"No {noun} has the id '{row_id}'.")


class InvalidRequest(MeteringError):
    """A request's own words are wrong; `errors` says which, as {"pointer", "code", "detail"}."""

    code = "invalid_request"


class IdempotencyConflict(MeteringError):
    """The idempotency key was used for another request."""

    code = "idempotency_conflict"


class Conflict(MeteringError):
    """The request contradicts what is stored."""

    code = "conflict"


class NameTaken(Conflict):
    """Another row has the name."""

    def __init__(self, noun: str, name: str) -> None:
        detail = f"There is already a {noun} named {name!r}."
        super().__init__(detail, errors=[{"pointer": "/name", "code": "taken", "detail": detail}])


class BudgetExceeded(MeteringError):
    """A budget that blocks has no room for the call. `budgets` says which, and what they hold."""

    code = "budget_exceeded"


class Unpriced(BudgetExceeded):
    """A budget on cost blocks, and the model has no price."""

    code = "unpriced"


class ApprovalNeeded(BudgetExceeded):
    """The budget's level holds calls until a person has raised the limit."""

    code = "approval_needed"


class Halted(MeteringError):
    """A halt is in force: manual (`halted`), by a breaker (`breaker_open`) or by a lockout
    (`locked_out`).
    """

    code = "halted"

    def __init__(self, detail: str, *, code: str = "halted", **members: object) -> None:
        super().__init__(detail, **members)
        self.code = code


class Throttled(MeteringError):
    """Too much for this minute. `retry_after_seconds` says when to ask again."""

    code = "throttled"


class ReservationFinished(Conflict):
    """The reservation has been settled, released, or has expired; `code` says which."""

    def __init__(self, detail: str, *, code: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(slots=True)
class EventRejected:
    """One event of a body was not taken; the others were.

    A value, not an exception: an exception that is kept keeps the frames that it came through, and
    with them the body.
    """

    code: str
    detail: str
    pointer: str | None = None
    event_id: str | None = None
    # Who sent it, and its redacted form, for the page of sources; not part of the answer.
    source: str | None = None
    sample: str | None = None

    def __post_init__(self) -> None:
        self.detail = shortened(self.detail)
        if self.pointer is not None:
            self.pointer = shortened(self.pointer, QUOTED_CHARACTERS_MAX)

    def as_error(self, index: int) -> dict[str, Any]:
        """The event's line in an answer's `errors`."""
        error: dict[str, object] = {"index": index, "code": self.code, "detail": self.detail}
        if self.event_id is not None:
            error["id"] = self.event_id[:QUOTED_CHARACTERS_MAX]
        if self.pointer is not None:
            error["pointer"] = self.pointer
        return error


def shortened(text: str, characters_max: int = DETAIL_CHARACTERS_MAX) -> str:
    """The text, its middle left out where it is longer than an answer should quote."""
    if len(text) <= characters_max:
        return text
    half = characters_max // 2
    return f"{text[:half]}…{text[1 - half :]}"


class RejectEvent(Exception):
    """Raised where an event is judged; what is kept of it is `rejection`."""

    def __init__(self, code: str, detail: str, *, pointer: str | None = None) -> None:
        super().__init__(detail)
        self.rejection = EventRejected(code, detail, pointer)


class LimitReached(ValidationError):
    """The tenant has as many of these as it may have."""

    def __init__(self, name: str, allowed: int) -> None:
        self.name = name
        self.allowed = allowed
        words = name.replace("_", " ")
        super().__init__(
            f"You have reached the limit of {allowed:,} {words}. Remove some that you no longer"
            " need, or ask the operator of this service for more.",
            code="limit_reached",
        )
