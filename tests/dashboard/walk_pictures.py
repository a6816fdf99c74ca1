"""Opens pages of a running demo, and takes the pictures of README: `make pictures`."""

import json
import sys
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

from tests.dashboard.walk import problems_of, settle, watch

FOLDER: Final = Path(__file__).parents[2] / "docs" / "img"
# Each picture: a page, and the link that leads on from there.
PICTURES: Final = {
    "overview": ("/", ""),
    "explore": ("/explore?group_by=team,model", ""),
    "session": ("/sessions", "#sessions th a.name"),
    "budget": ("/budgets", "main th a.name"),
    "savings": ("/savings", ""),
}


def take_pictures(access: dict[str, str], chromium: str) -> list[str]:
    """Write the pictures; answer what is wrong with the pages on them."""
    result: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"]
        )
        page = browser.new_page(
            base_url=access["url"],
            viewport={"width": 1440, "height": 900},
            color_scheme="light",
        )
        page.goto("/login")
        page.get_by_label("Email address").fill(access["email"])
        page.get_by_label("Password").fill(access["password"])
        page.keyboard.press("Enter")
        page.wait_for_url(f"{access['url']}/")
        complaints = watch(page, access["url"])
        for name, (path, further) in PICTURES.items():
            page.goto(path)
            if further:
                address = page.locator(further).first.get_attribute("href")
                assert address is not None
                page.goto(address)
            settle(page)
            page.screenshot(path=FOLDER / f"{name}.png")
            result += [f"{name}: {complaint}" for complaint in complaints + problems_of(page)]
            complaints.clear()
        browser.close()
    return result


if __name__ == "__main__":
    data_dir, chromium = sys.argv[1:]
    # config/demo.py wrote it.
    problems = take_pictures(json.loads((Path(data_dir) / "demo.json").read_text()), chromium)
    sys.exit("\n".join(problems) or None)
