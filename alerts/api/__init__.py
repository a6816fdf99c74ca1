"""The API of alerts, under `/v1`."""
