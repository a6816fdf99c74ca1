"""Events from files: the same events, the same answers, as often as one likes."""

import csv
import gzip
import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from metering.models import UsageEvent
from tests.factories import Account, make_event

pytestmark = pytest.mark.django_db(transaction=True)


def run(account: Account, path: Path) -> str:
    out = StringIO()
    call_command(
        "import_events", str(path), f"--tenant={account.tenant.name}", "--quiet", stdout=out
    )
    return out.getvalue()


def test_ndjson_gzipped_and_started_again(account: Account, tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(make_event()) + "\n" for _ in range(2_500))
    assert run(account, path) == "2,500 accepted, 0 duplicates, 0 rejected, 0 without a price.\n"
    assert run(account, path) == "0 accepted, 2,500 duplicates, 0 rejected, 0 without a price.\n"


def test_csv_with_numbers_objects_and_tags(account: Account, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    usage = {"input_tokens": 5, "output_tokens": 7}
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "model", "usage", "input_tokens", "agent", "tags.environment"])
        writer.writerow(
            ["1", "claude-sonnet-4-5", json.dumps(usage), "", 'a "quoted"\nname', "prod"]
        )
        writer.writerow(["2", "claude-sonnet-4-5", "", "12", "", ""])
    assert run(account, path).startswith("2 accepted")
    with account.scope():
        first, second = UsageEvent.objects.order_by("id")
    # Quoting keeps the line break, and a value of a dimension is one line.
    assert (first.input_tokens, first.output_tokens, first.agent) == (5, 7, 'a "quoted" name')
    assert (first.tags, second.input_tokens, second.agent) == ({"environment": "prod"}, 12, "")


def test_a_bad_line_is_named_and_the_rest_is_taken(
    account: Account, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join([json.dumps(make_event()), "{", json.dumps(make_event(x=1))]))
    with pytest.raises(CommandError, match="2 events were rejected"):
        run(account, path)
    shown = capsys.readouterr().err
    assert "event 2: malformed_json" in shown
    assert "event 3: unknown_field" in shown
    with account.scope():
        assert UsageEvent.objects.count() == 1


def test_what_is_not_there_is_said(account: Account, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="There is no file"):
        run(account, tmp_path / "none.ndjson")
    with pytest.raises(CommandError, match="There is no tenant"):
        call_command("import_events", str(tmp_path), "--tenant=nobody")
