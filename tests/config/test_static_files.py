"""Static files: one stylesheet, names by content, and files that were not collected."""

from pathlib import Path

from config.static_files import StaticFiles, one_stylesheet

FOLDER = Path("dashboard/static/dashboard")


def test_the_stylesheet_holds_every_part_and_asks_for_none() -> None:
    whole = one_stylesheet(FOLDER / "dashboard.css")
    assert "@import" not in whole
    assert [part.name for part in (FOLDER / "css").iterdir() if part.read_text() not in whole] == []


def test_a_file_that_was_not_collected_keeps_its_name(tmp_path: Path) -> None:
    files = StaticFiles(location=tmp_path, base_url="/static/")
    assert files.url("dashboard/dashboard.css") == "/static/dashboard/dashboard.css"


def test_a_collected_file_is_named_by_its_content(tmp_path: Path) -> None:
    parts = tmp_path / "dashboard" / "css"
    parts.mkdir(parents=True)
    (parts / "tokens.css").write_text(":root { color: red }\n")
    stylesheet = tmp_path / "dashboard" / "dashboard.css"
    stylesheet.write_text('@import url("css/tokens.css");\n')
    files = StaticFiles(location=tmp_path, base_url="/static/")
    paths = {"dashboard/dashboard.css": (files, "dashboard/dashboard.css")}
    assert all(done is True for _, _, done in files.post_process(paths))
    address = files.url("dashboard/dashboard.css")
    assert address != "/static/dashboard/dashboard.css"
    collected = tmp_path / address.removeprefix("/static/")
    assert collected.read_text() == ":root { color: red }\n"
