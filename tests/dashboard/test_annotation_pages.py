"""Flags on time charts, the page that lists what happened, and the API behind both."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from dashboard.chart_notes import ChartNote, Mark, with_annotations, with_marks
from dashboard.charts import over_time
from metering.models import Annotation
from tenants.roles import Role
from tests.dashboard.test_charts import STARTS
from tests.dashboard.test_enforcement_pages import HOSTILE, page, words
from tests.factories import Account, make_account, make_event, send
from tests.metering.api.caller import Caller, caller

DEPLOY = {"text": "Deployed 4.2", "filter": {"agent": "writer"}}


def with_scopes(account: Account, *scopes: str) -> Caller:
    body = {"name": " ".join(scopes), "scopes": list(scopes)}
    return Caller(str(caller(account).post("/v1/keys", body).body["key"]))


def flags(client: Client, query: str = "") -> list[str]:
    notes = client.get(f"/charts/spend.json{query}").json()["layout"].get("annotations", [])
    return [note["hovertext"] for note in notes]


def test_a_posted_moment_is_answered_listed_and_removed(account: Account) -> None:
    api = caller(account)
    made = api.post("/v1/annotations", {**DEPLOY, "time": "2026-11-21T12:00:00+01:00"})
    assert made.status == 201
    assert made.body["time"] == "2026-11-21T11:00:00Z"
    assert (made.body["text"], made.body["filter"]) == ("Deployed 4.2", {"agent": "writer"})
    assert api.get("/v1/annotations").body["data"] == [made.body]
    later = {"from": "2026-11-21T11:00:01Z"}
    assert api.get("/v1/annotations", **later).body["data"] == []
    assert caller(make_account()).delete(f"/v1/annotations/{made.body['id']}").status == 404
    assert api.delete(f"/v1/annotations/{made.body['id']}").status == 204
    assert api.get("/v1/annotations").body["data"] == []


def test_a_deploy_script_posts_with_ingest_alone_and_cannot_remove(account: Account) -> None:
    script = with_scopes(account, "ingest")
    made = script.post("/v1/annotations", DEPLOY)
    assert made.status == 201
    assert script.delete(f"/v1/annotations/{made.body['id']}").status == 403
    assert with_scopes(account, "read").post("/v1/annotations", DEPLOY).status == 403
    with account.scope():
        assert Annotation.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/text"),
        ({"text": "x" * 301}, "/text"),
        ({"text": "x", "time": "yesterday"}, "/time"),
        ({"text": "x", "filter": {"aget": "a"}}, "/filter/aget"),
    ],
)
def test_what_cannot_be_shown_is_refused(account: Account, body: object, pointer: str) -> None:
    answer = caller(account).post("/v1/annotations", body)
    assert (answer.status, answer.pointers) == (400, {pointer})


def test_flags_stand_on_the_chart_of_usage_that_they_may_be_about(
    account: Account, owner: Client
) -> None:
    send(account, [make_event(agent="writer"), make_event(agent="reader")])
    api = caller(account)
    for text in ("<b>One", "Two", "Three", "Four"):
        assert api.post("/v1/annotations", {**DEPLOY, "text": text}).status == 201
    assert flags(owner) == ["&lt;b&gt;One<br>Two<br>Three<br>and 1 more"]
    assert flags(owner, "?filter[agent]=reader") == []


def test_flags_stand_on_the_chart_of_explore(account: Account, owner: Client) -> None:
    send(account, [make_event(agent="writer")])
    caller(account).post("/v1/annotations", {"text": "Deployed 4.2"})
    for metric in ("cost", "error_rate"):
        figure = owner.get(f"/explore/chart.json?metric={metric}").json()
        notes = figure["layout"].get("annotations", [])
        assert [note["hovertext"] for note in notes if "hovertext" in note] == ["Deployed 4.2"], (
            metric
        )


def test_a_flag_stands_beside_an_incident_of_its_bucket() -> None:
    figure = over_time([], starts=STARTS, interval="day")
    places = [start.isoformat() for start in STARTS]
    figure["data"] = [{"x": places, "y": [1, 2, 3], "type": "bar"}]
    figure = with_marks(figure, [Mark(0, "critical", "Loop", 1, "/incidents/1")])
    notes = [ChartNote(0, ["a"], "/annotations?x=1&y"), ChartNote(1, ["b"], "/annotations")]
    _, beside, alone = with_annotations(figure, notes)["layout"]["annotations"]
    assert (beside["xshift"], alone["xshift"]) == (-18, 0)
    assert 'href="/annotations?x=1&amp;y"' in beside["text"]


def test_the_page_lists_what_happened_and_how_to_post_more(
    account: Account, owner: Client, as_role: Callable[[Role], Client]
) -> None:
    assert "Nothing was deployed or changed in this period" in words(owner, "/annotations")
    assert "/v1/annotations" in page(owner, "/annotations")
    for text in HOSTILE:
        body = {"text": text, "filter": {"agent": text}}
        assert caller(account).post("/v1/annotations", body).status == 201
    for role in Role:
        html = page(as_role(role), "/annotations")
        assert f"{len(HOSTILE)} moments may explain costs" in html
        assert "<script>alert(1)" not in html
        assert 'onmouseover="alert' not in html
    earlier = (timezone.now() - timedelta(days=30)).date().isoformat()
    assert "Nothing was deployed" in words(owner, f"/annotations?from={earlier}&to={earlier}")
