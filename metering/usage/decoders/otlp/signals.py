"""What to tell those who send one signal of OpenTelemetry to the address of another."""

from typing import Final, Literal, NamedTuple

from metering.usage.decoders.native import PassedOver

Signal = Literal["logs", "metrics"]


class Foreign(NamedTuple):
    """An export of another signal, and who sent it."""

    signal: Signal
    source: str

    @property
    def sentence(self) -> str:
        """What the export is, and where to send it."""
        return AT_TRACES[self.signal]

    def passed_over(self) -> PassedOver:
        """Return it as it is counted."""
        return PassedOver(self.source, f"{self.signal}_at_traces")


AT_TRACES: Final[dict[Signal, str]] = {
    "logs": (
        "This is an export of logs, and nothing of it was taken: this address takes traces. Set"
        " OTEL_EXPORTER_OTLP_LOGS_ENDPOINT to where your logs belong (/v1/logs)."
    ),
    "metrics": (
        "This is an export of metrics, and nothing of it was taken: this address takes traces. Set"
        " OTEL_EXPORTER_OTLP_METRICS_ENDPOINT to where your metrics belong (/v1/metrics)."
    ),
}
