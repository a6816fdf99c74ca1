"""The OpenAPI document: what every operation has in common is said here, once."""

from typing import Any, Final

import msgspec
from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentIdentity, ResolvedComponent
from drf_spectacular.utils import Direction
from rest_framework.serializers import ListSerializer

from common.api.pagination import page_of
from common.api.problems import CONTENT_TYPE, ERRORS_MAX, TITLE_BY_STATUS
from common.idempotency import HEADER, KEY_MAX_CHARACTERS
from common.json_bodies import JsonObject

REFERENCE: Final = "#/components/schemas/{name}"
PROBLEM: Final[JsonObject] = {
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


def spell_out_nullable(part: object) -> Any:
    """OpenAPI 3.1 has no `nullable`: a type that may be null is a list of two."""
    if isinstance(part, list):
        return [spell_out_nullable(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    spelled = {name: spell_out_nullable(inner) for name, inner in part.items()}
    if spelled.get("nullable") is True and "type" in spelled:
        del spelled["nullable"]
        spelled["type"] = [spelled["type"], "null"]
    return spelled


class ApiKeyScheme(OpenApiAuthenticationExtension):
    """How `ApiKeyAuthentication` is described."""

    target_class = "tenants.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: AutoSchema) -> JsonObject:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key: `Authorization: Bearer sg_<prefix>_<secret>`.",
        }


class ContractSchema(AutoSchema):
    """Adds problems, cursors and idempotency keys to what the views say of themselves."""

    def get_operation_id(self) -> str:
        """Return a stable id for a method and a path, such as `get_budgets_id`."""
        words = [
            word.strip("{}").replace("-", "_").replace(".", "_") for word in self.path.split("/")
        ]
        return "_".join([self.method.lower(), *(word for word in words if word not in ("", "v1"))])

    def get_summary(self) -> str:
        """What a view says of itself, where it says nothing of the operation."""
        about = (type(self.view).__doc__ or "").strip().splitlines()
        return super().get_summary() or about[0].rstrip(".")

    def get_override_parameters(self) -> list[Any]:
        """The query parameters that the view checks."""
        return [*super().get_override_parameters(), *self._of_action("parameters")]

    def get_request_serializer(self) -> Any:
        """The body of a resource, where the operation is not described by itself."""
        return getattr(self.view, "body", None)

    def get_response_serializers(self) -> Any:
        """The answers of a resource, where the operation is not described by itself."""
        answer = getattr(self.view, "answer", None)
        if answer is not None and self._action == "list":
            return {200: page_of(answer)}
        return {"create": {201: answer}, "destroy": {204: None}}.get(self._action, {200: answer})

    def _is_list_view(self, serializer: object = None) -> bool:
        """A page is described as an object; what is a list is said to be one."""
        return isinstance(serializer, ListSerializer)

    @property
    def _action(self) -> str:
        """What the operation does, by the action of a resource or the method of another view."""
        return getattr(self.view, "action", None) or self.method

    def _of_action(self, name: str) -> Any:
        return getattr(self.view, name, {}).get(self._action, ())

    def get_description(self, *path: str) -> str:
        """Nothing but what an operation says of itself: its summary is not repeated."""
        return ""

    def _get_parameters(self) -> list[JsonObject]:
        parameters: list[JsonObject] = super()._get_parameters()
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

    def _get_response_bodies(self, direction: Direction = "response") -> JsonObject:
        responses: JsonObject = super()._get_response_bodies(direction)
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
        statuses += self._of_action("also_answers")
        return sorted(set(statuses))

    def _problem(self, status: int) -> JsonObject:
        return {
            "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            "description": TITLE_BY_STATUS[status],
        }

    def _takes_idempotency_key(self) -> bool:
        handler = getattr(self.view, self._action.lower(), None)
        return any(getattr(part, "takes_idempotency_key", False) for part in (handler, self.view))


class AnswerExtension(OpenApiSerializerExtension):
    """Describes an answer, and the answers within it, as components of their names."""

    target_class = "common.api.structs.Answer"
    match_subclasses = True

    def get_name(self, auto_schema: AutoSchema, direction: Direction) -> str:
        name: str = self.target.__name__
        return name

    def get_identity(self, auto_schema: AutoSchema, direction: Direction) -> ComponentIdentity:
        return ComponentIdentity(self.target.__name__)

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> JsonObject:
        _, schemas = msgspec.json.schema_components([self.target], ref_template=REFERENCE)
        described: JsonObject = schemas.pop(self.target.__name__)
        for name, schema in schemas.items():
            component = ResolvedComponent(
                name=name,
                type=ResolvedComponent.SCHEMA,
                object=ComponentIdentity(name),
                schema=schema,
            )
            auto_schema.registry.register_on_missing(component)
        return described
