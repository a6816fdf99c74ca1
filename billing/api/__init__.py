"""The API of billing, under `/v1`."""
