"""What a JSON body decodes to."""

from typing import Any

# Tests look into bodies of every kind; a struct for each would say the contract again.
JsonObject = dict[str, Any]
