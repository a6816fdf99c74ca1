"""The OpenAPI document: what every operation has in common is said here, once."""

from typing import Any, Final

import msgspec
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import Direction

from common.api.problems import CONTENT_TYPE, ERRORS_MAX, TITLE_BY_STATUS
from common.idempotency import HEADER, KEY_MAX_CHARACTERS
from metering.reservations.request import AskBody, ExtendBody
from metering.usage.decoders.native import EventBody

PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "What went wrong, as RFC 9457 has it.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Stable, for programs."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer"},
                    "pointer": {"type": "string"},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
                "required": ["code", "detail"],
            },
            "description": f"The first {ERRORS_MAX} things that are wrong; of events, all.",
        },
        "error_count": {
            "type": "integer",
            "description": "How many there are, where `errors` holds the first of them only.",
        },
        "retry_after_seconds": {
            "type": "integer",
            "minimum": 1,
            "description": "When to ask again, as `Retry-After` says. Absent: not known.",
        },
    },
    "required": ["type", "title", "status", "detail", "code"],
}
# Any operation may answer these; 404 and 409 are added where there is an object or a creation.
COMMON_PROBLEMS: Final = (400, 401, 403, 503)
BODY_PROBLEMS: Final = (413, 415)


CLOUD_EVENT: Final[dict[str, Any]] = {
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
    result: dict[str, Any], generator: object, request: object, public: bool
) -> dict[str, Any]:
    """Hook of drf-spectacular: shapes that are no serializer's."""
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    _, parts = msgspec.json.schema_components(
        [EventBody, AskBody, ExtendBody], ref_template="#/components/schemas/{name}"
    )
    event, ask, extension = (parts.pop(name) for name in ("EventBody", "AskBody", "ExtendBody"))
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
    }
    spelled_out: dict[str, Any] = _spell_out_nullable(result)
    return spelled_out


def _spell_out_nullable(part: Any) -> Any:
    """OpenAPI 3.1 has no `nullable`: a type that may be null is a list of two."""
    if isinstance(part, list):
        return [_spell_out_nullable(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    spelled = {name: _spell_out_nullable(inner) for name, inner in part.items()}
    if spelled.get("nullable") is True and "type" in spelled:
        del spelled["nullable"]
        spelled["type"] = [spelled["type"], "null"]
    return spelled


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How `ApiKeyAuthentication` is described."""

    target_class = "tenants.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key: `Authorization: Bearer sg_<prefix>_<secret>`.",
        }


class ContractSchema(AutoSchema):
    """Adds problems, cursors and idempotency keys to what the views say of themselves."""

    def get_operation_id(self) -> str:
        """`get_budgets_id`: a method and a path are named alike for ever."""
        words = [
            word.strip("{}").replace("-", "_").replace(".", "_") for word in self.path.split("/")
        ]
        return "_".join([self.method.lower(), *(word for word in words if word not in ("", "v1"))])

    def get_summary(self) -> str:
        """What a view says of itself, where it says nothing of the operation."""
        about = (type(self.view).__doc__ or "").strip().splitlines()
        return super().get_summary() or about[0].rstrip(".")

    def _get_parameters(self) -> list[dict[str, Any]]:
        parameters: list[dict[str, Any]] = super()._get_parameters()
        if self._takes_idempotency_key():
            parameters.append(
                {
                    "in": "header",
                    "name": HEADER,
                    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_MAX_CHARACTERS},
                    "description": "Send the same key again to get the same answer again.",
                }
            )
        return parameters

    def _get_response_bodies(self, direction: Direction = "response") -> dict[str, Any]:
        responses: dict[str, Any] = super()._get_response_bodies(direction)
        for status in self._problem_statuses():
            responses.setdefault(str(status), self._problem(status))
        return responses

    def _problem_statuses(self) -> list[int]:
        statuses = list(COMMON_PROBLEMS)
        if "{" in self.path:
            statuses.append(404)
        if self.method in ("POST", "PATCH", "PUT"):
            statuses += BODY_PROBLEMS
        if self._takes_idempotency_key() or self.method == "PATCH":
            statuses.append(409)
        # A view that refuses more than others says so.
        statuses += getattr(self.view, "also_answers", {}).get(self.method, ())
        return sorted(set(statuses))

    def _problem(self, status: int) -> dict[str, Any]:
        return {
            "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            "description": TITLE_BY_STATUS[status],
        }

    def _takes_idempotency_key(self) -> bool:
        action = getattr(self.view, self.method.lower(), None)
        return getattr(action, "takes_idempotency_key", False)
