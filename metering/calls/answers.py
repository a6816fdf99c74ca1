"""What senders of usage read, as it is sent and as the OpenAPI document has it."""

from typing import Annotated

from msgspec import UNSET, UnsetType

from common.api.structs import Answer, about


class EventErrorAnswer(Answer):
    """Why one event was not taken."""

    index: int
    code: str
    detail: str
    id: str | UnsetType = UNSET
    pointer: str | UnsetType = UNSET


class EventWarningAnswer(Answer):
    """Something that lost no event."""

    code: str
    model: str
    detail: str


class IngestAnswer(Answer):
    """What became of the events of a body, now that all that were accepted are durable."""

    accepted: int
    merged: Annotated[
        int, about("Reports of calls that were known, which added something to them.")
    ]
    duplicates: Annotated[int, about("Reports that added nothing.")]
    rejected: int
    unpriced: Annotated[int, about("Of the accepted ones.")]
    errors: list[EventErrorAnswer]
    warnings: Annotated[
        list[EventWarningAnswer] | UnsetType,
        about("Models without a price that look misspelt."),
    ] = UNSET
