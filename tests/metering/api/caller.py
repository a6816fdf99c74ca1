"""Calls the API as a program would, through Django's test client."""

import json
from dataclasses import dataclass
from typing import Any

from django.test import Client

from tests.factories import Account

PROBLEM = "application/problem+json"


@dataclass
class Answer:
    """A status, the JSON of the body, and its type."""

    status: int
    body: Any
    content_type: str

    @property
    def code(self) -> str:
        """The code of a problem; asserts that the answer is one."""
        assert self.content_type == PROBLEM, (self.status, self.body)
        assert self.body["status"] == self.status
        assert {"type", "title", "detail"} <= self.body.keys()
        return str(self.body["code"])

    @property
    def pointers(self) -> set[str]:
        """Which members of the request were wrong."""
        return {error["pointer"] for error in self.body["errors"]}


class Caller:
    """One key that calls; `api_key` of None sends none."""

    def __init__(self, api_key: str | None) -> None:
        # A failure must be answered as one, not raised into the test.
        self._client = Client(raise_request_exception=False)
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}

    def get(self, path: str, **parameters: Any) -> Answer:
        return self._answer(self._client.get(path, parameters, headers=self._headers))

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.send("POST", path, body, **headers)

    def patch(self, path: str, body: object) -> Answer:
        return self.send("PATCH", path, body)

    def delete(self, path: str) -> Answer:
        return self._answer(self._client.delete(path, headers=self._headers))

    def send(
        self,
        method: str,
        path: str,
        body: Any,
        content_type: str = "application/json",
        **headers: str,
    ) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._answer(
            self._client.generic(
                method,
                path,
                data,
                headers={**self._headers, **named},
                # Named twice, since the test client leaves the type of an empty body out.
                content_type=content_type,
                CONTENT_TYPE=content_type,
            )
        )

    @staticmethod
    def _answer(response: Any) -> Answer:
        content_type = response.get("Content-Type", "")
        raw = b"".join(response.streaming_content) if response.streaming else response.content
        body = json.loads(raw) if "json" in content_type else raw.decode()
        return Answer(response.status_code, body, content_type)


def caller(account: Account) -> Caller:
    return Caller(account.api_key)
