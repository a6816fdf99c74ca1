"""What to tell those who send one signal of OpenTelemetry to the address of another."""

from typing import Final, Literal

Signal = Literal["logs", "metrics"]

AT_TRACES: Final[dict[Signal, str]] = {
    "logs": (
        "This is an export of logs, and nothing of it was taken: send it to /v1/logs (set"
        " OTEL_EXPORTER_OTLP_LOGS_ENDPOINT to that address)."
    ),
    "metrics": (
        "This is an export of metrics, and nothing of it was taken: send it to /v1/metrics (set"
        " OTEL_EXPORTER_OTLP_METRICS_ENDPOINT to that address)."
    ),
}
