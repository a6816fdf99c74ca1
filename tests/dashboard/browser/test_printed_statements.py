"""The A4 page of a statement, as Chromium prints it to PDF."""

import io

from playwright.sync_api import Page
from pypdf import PdfReader

from billing.statement_files import file_of
from common.json_bodies import JsonObject
from tenants.scope import tenant_scope
from tests.billing.scene import Billed, make_customer, make_plan, month_start, put_on
from tests.factories import Account

FIRST = month_start(1)
# In points, of which 72 are an inch: 210 by 297 mm.
A4 = (595, 842)
# What is left of the width between the margins, in CSS pixels.
PRINTED_WIDTH = round(178 / 25.4 * 96)
LONG_NAME = "Reasoning-heavy ticket answers with retrieval over the knowledge base, input tokens"
UNBROKEN = "anthropic/claude-sonnet-4-5-20250929:extended-thinking-budget-1048576-eu-west-3"


def _fee(name: str, amount: str) -> JsonObject:
    return {"name": name, "kind": "flat", "amount": amount, "when": "advance"}


def _statement(account: Account, charges: list[JsonObject]) -> str:
    """Return the page of a final statement with these charges."""
    customer = make_customer(
        account,
        name="Harbor & Söhne Logistics International GmbH",
        address="Lindenstr. 8, Aufgang C\n10969 Berlin",
        country="DE",
        email="accounts-payable.invoices@harbor-soehne-logistics.example",
        vat_id="DE811907980",
        tax_rates=[{"name": "VAT", "percent": "19"}],
    )
    put_on(account, customer, make_plan(account, *charges), FIRST)
    statement = Billed(account, customer).finalize(FIRST).statement
    with tenant_scope(account.tenant.id, is_snapshot=True):
        return file_of(statement, "html").decode()


def _pdf(tab: Page, html: str) -> PdfReader:
    """Print a page; nothing may be wider than the paper, or Chromium would shrink or cut it."""
    tab.set_viewport_size({"width": PRINTED_WIDTH, "height": 900})
    tab.set_content(html)
    tab.emulate_media(media="print")
    wide = tab.evaluate(
        "() => [...document.querySelectorAll('body *')].filter(each =>"
        " each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display != 'inline'"
        " || each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML)"
    )
    assert wide == []
    return PdfReader(io.BytesIO(tab.pdf(prefer_css_page_size=True)))


def _texts(pdf: PdfReader) -> list[str]:
    return [" ".join(page.extract_text().split()) for page in pdf.pages]


def test_a_statement_of_one_line_is_one_page_of_a4(account: Account, tab: Page) -> None:
    pdf = _pdf(tab, _statement(account, [_fee("Platform fee", "1200")]))
    assert [tuple(map(round, page.mediabox[2:])) for page in pdf.pages] == [A4]
    [text] = _texts(pdf)
    for words in ("Statement 000001", "Platform fee", "VAT 19% $228.00", "Amount due $1,428.00"):
        assert words in text
    assert "1 of 1" in text


def test_a_long_statement_repeats_its_header_and_ends_with_its_total(
    account: Account, tab: Page
) -> None:
    names = [f"Seat {number:03}" for number in range(1, 116)]
    charges = [_fee(name, "1234567.89") for name in names]
    charges += [_fee(LONG_NAME, "0.01"), _fee(UNBROKEN, "0.02")]
    pdf = _pdf(tab, _statement(account, charges))
    assert {tuple(map(round, page.mediabox[2:])) for page in pdf.pages} == {A4}
    texts = _texts(pdf)
    # About 25 lines fit on a page, as the machine's fonts are.
    assert len(texts) in (4, 5, 6)
    for number, text in enumerate(texts, 1):
        assert text.count("Description Quantity Rate Amount") == 1
        assert "Statement 000001" in text
        assert f"{number} of {len(texts)}" in text
        assert [name in text for name in ("Total", "Amount due")] == [number == len(texts)] * 2
    whole = " ".join(texts)
    assert [whole.count(name) for name in names] == [1] * len(names)
    assert LONG_NAME in whole
    assert UNBROKEN in whole.replace(" ", "")
    # Each once as the rate and once as the amount.
    assert whole.count("$1,234,567.89") == 2 * len(names)
