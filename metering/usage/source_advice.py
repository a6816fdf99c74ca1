"""What a reason for a loss means, and what to set so that it ends: one table, by code. Pure."""

from typing import Final, NamedTuple


class Advice(NamedTuple):
    """What a code means where the report itself does not say, and what its sender should set."""

    detail: str
    what_to_set: str


_ENCODING: Final = "Set OTEL_EXPORTER_OTLP_COMPRESSION=gzip, or send bodies uncompressed."
_JSON: Final = "Send UTF-8 JSON; let a JSON library write it, and leave out NaN and Infinity."

ADVICE: Final[dict[str, Advice]] = {
    # Stored, but not as it should be.
    "usage_missing": Advice(
        "The call succeeded and its report names no tokens, so its cost is unknown.",
        "Set stream_options.include_usage=true (OpenAI) so that streams report their tokens.",
    ),
    "no_price": Advice(
        "The model had no price when the call arrived.",
        "Add a price for the model (POST /v1/prices); its calls are then priced immediately.",
    ),
    "no_rate": Advice(
        "The price of the model has no rate for some of what the call used, such as searches,"
        " seconds or characters; the rest is priced.",
        "Add a price for the model that has a rate for it (POST /v1/prices); GET /v1/events shows"
        " the units in extra_usage.",
    ),
    "conflict": Advice(
        "The report shares an id with a known call and contradicts it, so it was stored as another"
        " call.",
        "Give each call a response_id, request_id or span of its own (GET"
        " /v1/events?conflicts=true lists these calls).",
    ),
    # Rejected.
    "missing_usage": Advice(
        "A model call was reported without token counts.",
        "Set stream_options.include_usage=true (OpenAI) so that streams report their tokens, or"
        " send usage, token counts or cost_usd.",
    ),
    "unknown_usage": Advice(
        "The usage object has a shape that is not known.",
        "Send the provider's usage object unchanged, or the flat fields input_tokens and"
        " output_tokens.",
    ),
    "usage_mismatch": Advice(
        "The flat token fields contradict the usage object.",
        "Send either the provider's usage object or the flat fields, not both.",
    ),
    "inconsistent_tokens": Advice(
        "The token counts contradict each other.",
        "Count cached tokens within input_tokens, and reasoning tokens within output_tokens.",
    ),
    "unknown_operation": Advice(
        "A span uses tokens under an operation that is not known to be one call.",
        "Set gen_ai.operation.name to chat, embeddings or execute_tool on the span of the call.",
    ),
    "time_out_of_range": Advice(
        "The call's time is too old, or too far ahead.",
        "Set the sender's clock by NTP, and send calls within EVENT_MAX_AGE_DAYS (35 by default).",
    ),
    "id_conflict": Advice(
        "The id was used for an event with other content.",
        "Give each event an id of its own per source; to change a stored event, post a correction.",
    ),
    "too_deep": Advice(
        "The JSON nests too deeply.",
        "Leave tool schemas and messages out of what is reported; usage needs neither.",
    ),
    "too_large": Advice(
        "The body is too large.",
        "Send smaller batches, and leave prompts and answers out of them.",
    ),
    "too_many_events": Advice(
        "The body holds more than 10,000 events, or more resources or scopes of spans.",
        "Send at most 10,000 events per request.",
    ),
    "unsupported_media_type": Advice(
        "The content type or encoding is not supported.",
        "Set Content-Type to application/json, or to application/x-protobuf for OTLP, and"
        " Content-Encoding to gzip or nothing.",
    ),
    "unknown_field": Advice(
        "The event has a field that is not part of the contract.",
        "Move custom key-value pairs into tags; the fields of an event are listed at /v1/docs.",
    ),
    "missing_field": Advice(
        "A required field is missing.", "Send the field that the detail names; id is required."
    ),
    "invalid_value": Advice(
        "A value does not fit its field.", "Send the value as the detail says."
    ),
    "cost_out_of_range": Advice(
        "The cost is above what one event may cost.",
        "Send cost_usd in dollars, not in cents or nano-dollars.",
    ),
    "malformed_json": Advice("The body is not JSON.", _JSON),
    "invalid_utf8": Advice("The body is not UTF-8.", _JSON),
    "malformed_gzip": Advice("The body is not gzip, or ends too early.", _ENCODING),
    "malformed_deflate": Advice("The body is not deflate, or ends too early.", _ENCODING),
    "malformed_protobuf": Advice(
        "The body is not an OTLP message.",
        "Set OTEL_EXPORTER_OTLP_PROTOCOL to http/protobuf or http/json.",
    ),
    "wrong_signal": Advice(
        "Logs or metrics were sent to the endpoint for traces, or vice versa.",
        "Send each signal to its own endpoint: set OTEL_EXPORTER_OTLP_ENDPOINT to the service's URL"
        " without a path.",
    ),
    "logs_at_traces": Advice(
        "Logs were sent to the endpoint for traces.",
        "Send logs to /v1/logs: set OTEL_EXPORTER_OTLP_LOGS_ENDPOINT to its full URL.",
    ),
    "metrics_at_traces": Advice(
        "Metrics were sent to the endpoint for traces.",
        "Send metrics to /v1/metrics: set OTEL_EXPORTER_OTLP_METRICS_ENDPOINT to its full URL.",
    ),
    "traces_at_logs": Advice(
        "Traces were sent to the endpoint for logs.",
        "Send traces to /v1/traces: set OTEL_EXPORTER_OTLP_TRACES_ENDPOINT to its full URL.",
    ),
    "cumulative_metric": Advice(
        "Cumulative sums do not say what was used since the last export.",
        "Set OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta where the sender runs.",
    ),
    # Passed over.
    "not_a_call": Advice(
        "These reports are no model or tool calls.",
        "No action is needed. If they are calls, set gen_ai.operation.name on their spans.",
    ),
    "around_calls": Advice(
        "These spans stand around calls, and repeat what the calls used.",
        "No action is needed: the calls themselves are counted.",
    ),
    "no_model": Advice(
        "The report names tokens and no model.",
        "Set gen_ai.request.model or gen_ai.response.model on the span of the call.",
    ),
    "unknown_usage_part": Advice(
        "The usage object has members that are not known. Its counts add up without them, so the"
        " call is counted; the members are kept in extra_usage.",
        "No action is needed, unless the provider bills for these members.",
    ),
    "told_elsewhere": Advice(
        "The same calls are counted by their logs or spans.",
        "No action is needed; to send less, turn these metrics off.",
    ),
}

# Passed over, and rightly so.
HARMLESS: Final = frozenset({"not_a_call", "around_calls", "told_elsewhere", "unknown_usage_part"})
_OTHER: Final = "See the detail and the sample; GET /v1/docs describes what can be sent."


def detail_of(code: str) -> str:
    """Return what a code means, for reports that do not say it themselves."""
    return ADVICE[code].detail if code in ADVICE else code.replace("_", " ").capitalize()


def what_to_set(code: str) -> str:
    """Return the sentence that ends the loss."""
    return ADVICE[code].what_to_set if code in ADVICE else _OTHER
