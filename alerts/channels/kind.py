"""What all kinds of channels have in common: fields, and how they report a failure."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from alerts.messages import Message
from common.json_bodies import JsonObject

Fields = Mapping[str, Any]


class Field(NamedTuple):
    """One setting of a channel. The value of a list is a list of texts, of others a text."""

    name: str
    label: str
    help: str
    is_secret: bool = False
    is_required: bool = True
    is_list: bool = False


class Settings(NamedTuple):
    """A channel's settings, split: what may be shown, and what is stored encrypted.

    Of a secret field that is an address, `config` holds what may be shown of it.
    """

    config: JsonObject
    secrets: JsonObject


class Sent(NamedTuple):
    """The receiver took the message. `status` is its HTTP or SMTP status."""

    status: int | None
    remark: str = ""


class NotDelivered(Exception):
    """The receiver did not take the message. `detail` holds no secret and no whole address.

    `status` is what the receiver answered, None without an answer. `is_receiver_down`: the cause is
    not this message, so others would not get through now either. `is_final`: the receiver will
    never take anything at this address again. `retry_after_seconds`: how long it asked to wait.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        is_receiver_down: bool = True,
        is_final: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.is_receiver_down = is_receiver_down
        self.is_final = is_final
        self.retry_after_seconds = retry_after_seconds


class Kind(NamedTuple):
    """A way for messages to travel.

    `read` validates the values of all fields, and raises WrongChannel. `send` sends one message in
    this thread, and raises NotDelivered; the reference is the same for every attempt.
    """

    label: str
    fields: tuple[Field, ...]
    # Sent immediately, unless a channel is configured otherwise.
    severities: tuple[str, ...]
    read: Callable[[Fields], Settings]
    send: Callable[[Fields, Fields, Message, str], Sent]
    has_digests: bool = True
