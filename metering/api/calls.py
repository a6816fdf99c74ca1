"""`GET /v1/traces/{trace}` and `GET /v1/sessions/{session}`: how calls belong together."""

from typing import Any, Final

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import moment_text
from common.money import usd_from_nanos
from metering.api.events import EVENT_SCHEMA, event_answer
from metering.api.usage import MEASURES_SCHEMA, USD, measures_answer
from metering.models import Outcome
from metering.reporting import CallNode, call_tree, read_session
from tenants.api.views import ApiView, tenant_of
from tenants.roles import Scope

NODE_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "An event, its own cost, the cost with everything below it, and its `children`.",
    "properties": {
        **EVENT_SCHEMA["properties"],
        "subtree_cost_usd": USD,
        "children": {"type": "array", "items": {"type": "object", "additionalProperties": {}}},
    },
    "required": [*EVENT_SCHEMA["required"], "subtree_cost_usd", "children"],
}
TRACE_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "trace": {"type": "string"},
        "cost_usd": USD,
        "event_count": {"type": "integer"},
        "is_truncated": {
            "type": "boolean",
            "description": "The trace has more than the first 10,000 events, which are shown.",
        },
        "roots": {"type": "array", "items": NODE_SCHEMA},
    },
    "required": ["trace", "cost_usd", "event_count", "is_truncated", "roots"],
}
_SHARES: Final = {
    "type": "array",
    "items": {"type": "object", "properties": MEASURES_SCHEMA, "additionalProperties": {}},
}
SESSION_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "session": {"type": "string"},
        "total": {"type": "object", "properties": MEASURES_SCHEMA},
        "by_agent": _SHARES,
        "by_model": _SHARES,
        "by_tool": _SHARES,
        "outcome": {
            "type": "object",
            "nullable": True,
            "properties": {
                "success": {"type": "boolean"},
                "value_usd": {**USD, "nullable": True},
                "reported_at": {"type": "string", "format": "date-time"},
            },
        },
        "is_truncated": {
            "type": "boolean",
            "description": "The session has more than the first 10,000 events, which are shown.",
        },
        "events": {
            "type": "array",
            "items": {
                **EVENT_SCHEMA,
                "properties": {**EVENT_SCHEMA["properties"], "running_cost_usd": USD},
            },
        },
    },
    "required": ["session", "total", "by_agent", "by_model", "by_tool", "outcome", "events"],
}


class TraceView(ApiView):
    """One trace."""

    read_scope = Scope.READ

    @extend_schema(summary="The call tree of a trace", responses={200: TRACE_SCHEMA})
    def get(self, request: Request, trace: str) -> Response:
        tree = call_tree(tenant_id=tenant_of(request).id, trace=trace)
        return Response(
            {
                "trace": trace,
                "cost_usd": usd_from_nanos(tree.cost_nanos),
                "event_count": tree.event_count,
                "is_truncated": tree.is_truncated,
                "roots": [_node(root) for root in tree.roots],
            }
        )


class SessionView(ApiView):
    """One session."""

    read_scope = Scope.READ

    @extend_schema(
        summary="A session in the order in which it happened", responses={200: SESSION_SCHEMA}
    )
    def get(self, request: Request, session: str) -> Response:
        found = read_session(tenant_id=tenant_of(request).id, session=session)
        shares = {
            f"by_{name}": [{**row.group, **measures_answer(row.measures)} for row in rows]
            for name, rows in found.by_dimension.items()
        }
        return Response(
            {
                "session": session,
                "total": measures_answer(found.total),
                **shares,
                "outcome": None if found.outcome is None else _outcome(found.outcome),
                "is_truncated": found.is_truncated,
                "events": [
                    {
                        **event_answer(step.event),
                        "running_cost_usd": usd_from_nanos(step.running_cost_nanos),
                    }
                    for step in found.steps
                ],
            }
        )


def _node(node: CallNode) -> dict[str, Any]:
    # A tree is at most queries.traces.DEPTH_MAX deep.
    return {
        **event_answer(node.event),
        "subtree_cost_usd": usd_from_nanos(node.subtree_cost_nanos),
        "children": [_node(child) for child in node.children],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    value_nanos = outcome.value_nanos
    return {
        "success": outcome.is_success,
        "value_usd": None if value_nanos is None else usd_from_nanos(value_nanos),
        "reported_at": moment_text(outcome.reported_at),
    }
