import io
import json
import stat
from pathlib import Path

import pytest
from django.core.management import call_command
from rich.console import Console

from config import demo
from config.demo import is_loaded, load, open_demo, show
from tenants.models import Tenant
from tenants.scope import platform_scope

pytestmark = pytest.mark.django_db

URL = "http://127.0.0.1:8000"


def tenant_names() -> list[str]:
    with platform_scope("test"):
        return list(Tenant.objects.values_list("name", flat=True))


def test_an_empty_database_gets_the_demo_tenant_and_a_file_that_lets_one_in(tmp_path: Path) -> None:
    access = open_demo(data_dir=tmp_path, url=URL)
    assert access is not None
    assert tenant_names() == ["demo"]
    stored = json.loads((tmp_path / "demo.json").read_text())
    assert list(stored) == ["url", "api_key", "email", "password", "tenant"]
    assert (stored["url"], stored["email"], stored["tenant"]) == (URL, "demo@example.com", "demo")
    assert stored["api_key"].startswith("sg_")
    assert stat.S_IMODE((tmp_path / "demo.json").stat().st_mode) == 0o600
    assert not is_loaded(tmp_path)


def test_the_next_start_goes_on_with_the_same_tenant(tmp_path: Path) -> None:
    first = open_demo(data_dir=tmp_path, url=URL)
    second = open_demo(data_dir=tmp_path, url="http://127.0.0.1:9000")
    assert first is not None
    assert second is not None
    assert second.api_key == first.api_key
    assert json.loads((tmp_path / "demo.json").read_text())["url"] == "http://127.0.0.1:9000"
    assert tenant_names() == ["demo"]


def test_a_database_of_others_is_left_alone(tmp_path: Path) -> None:
    call_command("create_tenant", "Example", owner="o@example.com", stdout=io.StringIO())
    assert open_demo(data_dir=tmp_path, url=URL) is None
    assert tenant_names() == ["Example"]
    assert list(tmp_path.iterdir()) == []


def test_a_new_database_under_an_old_folder_gets_a_new_demo(tmp_path: Path) -> None:
    old = {"url": URL, "api_key": "sg_old", "email": "e", "password": "p", "tenant": "demo"}
    (tmp_path / "demo.json").write_text(json.dumps(old))
    access = open_demo(data_dir=tmp_path, url=URL)
    assert access is not None
    assert access.api_key != "sg_old"
    assert not is_loaded(tmp_path)


@pytest.mark.parametrize(("status", "is_complete"), [(0, True), (1, False)])
def test_only_a_complete_load_counts_as_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, is_complete: bool
) -> None:
    access = open_demo(data_dir=tmp_path, url=URL)
    assert access is not None
    monkeypatch.setattr(demo, "REPLAY", ["-c", f"import sys; sys.exit({status})"])
    assert load(access, data_dir=tmp_path) is is_complete
    assert is_loaded(tmp_path) is is_complete


def test_the_lines_to_copy_are_whole_on_a_narrow_screen(tmp_path: Path) -> None:
    access = open_demo(data_dir=tmp_path, url=URL)
    assert access is not None
    screen = io.StringIO()
    show(access, Console(file=screen, width=40))
    lines = [line for line in screen.getvalue().splitlines() if line]
    assert [line[:14].strip() for line in lines] == [
        *("Look at it", "Sign in as", "Send an event", "See its total")
    ]
    assert access.password in lines[1]
    assert lines[2].endswith("}'")
    assert lines[3].endswith(f"Bearer {access.api_key}'")
