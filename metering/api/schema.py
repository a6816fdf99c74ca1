"""The shapes of usage and reservations in the OpenAPI document, which are no serializer's."""

from typing import Final

import msgspec

from common.api.schema import PROBLEM, spell_out_nullable
from common.json_bodies import JsonObject
from metering.api.rates import RATES_SCHEMA
from metering.fields.body import MATCH_SCHEMA
from metering.reservations.request import ExtendBody, ReservationBody
from metering.usage.decoders.native import EventBody

CLOUD_EVENT: Final[JsonObject] = {
    "type": "object",
    "description": "CloudEvents 1.0 around an event. `id`, `source` and `time` are the event's;"
    " `subject` is the customer when the data names none.",
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 200},
        "source": {"type": "string", "minLength": 1, "maxLength": 200},
        "type": {"type": "string", "minLength": 1},
        "time": {"type": "string", "format": "date-time"},
        "subject": {"type": "string"},
        "datacontenttype": {"const": "application/json"},
        "data": {"type": "object", "description": "The event; its `id` may be left out."},
    },
    "required": ["specversion", "id", "source", "type", "data"],
}


ASK_DESCRIPTION: Final = (
    "What the call may cost: `amount_usd`; or `input_tokens` and `max_output_tokens`, or `units`,"
    " of a `model`; a tool alone is priced from the tenant's tool prices.\n\n"
    "`estimate: max` holds the dearest call that the request allows. What the request does not say"
    " is taken to be the dearest: all input is written to the cache that is kept longest (twice the"
    " input price at Anthropic) and is of the dearest kind that the model reads, all output of the"
    " dearest kind that it writes. Say `cache_control`, `input_modalities` and `modalities` to hold"
    " less. Searches, other units, further choices, the service tier and the place are those that"
    " are said, and none where nothing is. Of an amount beside a size, the larger is held."
)
ASK_FIELDS: Final = {
    "amount_usd": "An amount of 0 without a size tells nothing of what a model call costs: a budget"
    " on cost then follows `unpriced_policy`.",
    "choices": "How many answers are generated, of at most `max_output_tokens` each.",
    "web_searches": "How many web searches the call may make: a tool's `max_uses`.",
    "units": "What is billed by something else than tokens, at most, by usage key, as in"
    ' {"input_characters": 5000}.',
    "cache_control": "What the request may write to the provider's cache: `none`, for `5m` or `1h`;"
    " or Anthropic's own object.",
    "input_modalities": "What the input may hold.",
    "modalities": "What the answer may hold.",
    "inference_geo": "Where the call is bound to run, as in Anthropic's `inference_geo`.",
    "service_tier": "`batch`, `flex`, `priority` or `fast`, where the call will be served so.",
}


def add_components(
    result: JsonObject, generator: object, request: object, public: bool
) -> JsonObject:
    """Hook of drf-spectacular: shapes that are no serializer's."""
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    _, parts = msgspec.json.schema_components(
        [EventBody, ReservationBody, ExtendBody], ref_template="#/components/schemas/{name}"
    )
    event, ask, extension = (
        parts.pop(name) for name in ("EventBody", "ReservationBody", "ExtendBody")
    )
    event["description"] = "One model call or tool call."
    settled = {
        **event,
        "description": "The call that was made. What it leaves out is taken from the reservation.",
        "required": [],
    }
    ask["description"] = ASK_DESCRIPTION
    for name, text in ASK_FIELDS.items():
        ask["properties"][name]["description"] = text
    extension["description"] = "For how long from now."
    schemas |= {
        **parts,
        "Event": event,
        "SettledEvent": settled,
        "Ask": ask,
        "Extension": extension,
        "CloudEvent": CLOUD_EVENT,
        "Problem": PROBLEM,
        "Match": MATCH_SCHEMA,
        "Rates": RATES_SCHEMA,
    }
    spelled_out: JsonObject = spell_out_nullable(result)
    return spelled_out
