"""Where no view answers: problems for programs, pages for people, a stack trace for nobody."""

import pytest
from django.db import OperationalError
from django.test import Client

from tests.factories import Account
from tests.metering.api.caller import caller


def raising(error: Exception) -> object:
    def fail(*arguments: object) -> None:
        raise error

    return fail


def test_an_unknown_address_is_a_problem_or_a_page(account: Account, client: Client) -> None:
    answer = caller(account).get("/v1/nothing/here")
    assert (answer.status, answer.code) == (404, "not_found")
    page = client.get("/nothing/here")
    assert (page.status_code, page["Content-Type"]) == (404, "text/html; charset=utf-8")


def test_a_host_that_is_not_ours_is_refused(account: Account, client: Client) -> None:
    answer = client.get("/v1/budgets", headers={"Host": "elsewhere.example", **account.headers})
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 400


def test_a_database_that_is_away_is_a_503_to_be_tried_again(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OperationalError("could not connect: password=hunter2")
    monkeypatch.setattr("tenants.middleware.find_key_holder", raising(error))
    answer = caller(account).get("/v1/budgets")
    assert (answer.status, answer.code) == (503, "database_unavailable")
    assert "hunter2" not in str(answer.body)


def test_a_mistake_of_ours_is_a_500_without_a_trace(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenants.middleware.find_key_holder", raising(RuntimeError("hunter2")))
    answer = caller(account).get("/v1/budgets")
    assert (answer.status, answer.code) == (500, "internal_error")
    assert "hunter2" not in str(answer.body)
    page = Client(raise_request_exception=False).get("/", headers={"Authorization": "Bearer x"})
    assert page.status_code == 500
    assert b"hunter2" not in page.content


def test_a_mistake_in_a_view_is_a_500_that_leaves_nothing_behind(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tenants.api.teams.TeamBody.to_representation", raising(RuntimeError("hunter2"))
    )
    answer = caller(account).post("/v1/teams", {"name": "growth"})
    assert (answer.status, answer.code) == (500, "internal_error")
    monkeypatch.undo()
    assert caller(account).get("/v1/teams").body["data"] == []
