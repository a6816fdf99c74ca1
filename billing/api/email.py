"""Email addresses in bodies."""

from typing import Final

from rest_framework import serializers

from common.api.fields import Text

# The longest address that mail can go to (RFC 3696, erratum 1690), and that a row holds.
EMAIL_CHARACTERS_MAX: Final = 254


class Email(Text, serializers.EmailField):
    """An email address."""

    example = "billing@example.com"
    default_error_messages = {"invalid": "must be an email address, as in billing@example.com"}

    def __init__(self, **options: object) -> None:
        super().__init__(**{"max_length": EMAIL_CHARACTERS_MAX, **options})
