"""The page as a real browser lays it out, with the network off."""

import os
import shutil
from pathlib import Path

import pytest
from tests.report.views import write_report

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs the extra 'browser' (pip install promptlimits[browser])"
)
CHROMIUM = os.environ.get("PROMPTLIMITS_CHROMIUM") or shutil.which("chromium")
pytestmark = [
    # Starting a browser takes more than a second.
    pytest.mark.slow,
    pytest.mark.skipif(
        not CHROMIUM, reason="needs chromium on the path, or its path in PROMPTLIMITS_CHROMIUM"
    ),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as runner:
        running = runner.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield running
        running.close()


@pytest.fixture
def open_page(browser, tmp_path):
    contexts = []

    def open_record(record, *, width, script=True, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            offline=True,
            java_script_enabled=script,
            color_scheme=scheme,
        )
        contexts.append(context)
        page = context.new_page()
        page.requests, page.complaints = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(write_report(record, tmp_path).as_uri())
        return page

    yield open_record
    for context in contexts:
        context.close()


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def shown(page):
    return page.evaluate(
        "[...document.querySelectorAll('.pairs tbody tr')].filter(r => r.checkVisibility()).length"
    )


@pytest.mark.parametrize("width", [320, 375, 800, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_asks_for_nothing(open_page, record, width, scheme):
    page = open_page(record, width=width, scheme=scheme)
    assert overflow(page) <= 0
    page.locator("details summary").click()
    assert overflow(page) <= 0
    assert len(page.requests) == 1
    assert page.complaints == []


def test_hostile_and_long_strings_do_not_break_the_layout_or_run(open_page, make_record):
    record = make_record(held={1: 4}, number=8)
    record["model"]["name"] = "W" * 300
    record["task"]["answer_set"] = "<img src=x onerror='document.title=1'>" + "x" * 2000
    record["command"] = "c" * 3000
    record["brackets"][0]["floor"]["answers"][7]["decoded"] = "</td><script>document.title=1"
    page = open_page(record, width=375)
    page.locator("details summary").click()
    assert overflow(page) <= 0
    assert page.title().startswith("W")
    assert page.complaints == []
    assert len(page.requests) == 1


@pytest.mark.parametrize("script", [True, False])
def test_pairs_are_filtered_without_a_script(open_page, record, script):
    page = open_page(record, width=375, script=script)
    page.locator("details summary").click()
    for choice, least in (("held", 71), ("wrong", 203), ("uncounted", 6), ("all", 246)):
        page.locator(f"#show-{choice}").check()
        assert page.locator(".pairs tbody tr:visible").count() == least


def test_text_is_copied_and_the_buttons_need_the_script(open_page, record):
    page = open_page(record, width=1200)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = page.locator("button[data-copy=verify-code]")
    button.click()
    page.wait_for_function("document.querySelector('[data-copy=verify-code]').innerText != 'Copy'")
    assert button.inner_text() == "Copied"
    assert page.evaluate("navigator.clipboard.readText()") == (
        "promptlimits verify witness-2-tokens --model models/synthetic\n"
        "python witness-2-tokens/replay.py --model models/synthetic"
    )
    silent = open_page(record, width=1200, script=False)
    assert silent.locator("button:visible").count() == 0


def test_print_shows_every_pair(open_page, record):
    page = open_page(record, width=800)
    assert shown(page) == 0
    page.emulate_media(media="print")
    assert shown(page) == 246
    page.locator("#show-held").evaluate("button => button.checked = true")
    assert shown(page) == 246
    assert page.locator("nav").is_hidden()


def test_the_record_comes_out_of_the_page(open_page, record, tmp_path):
    page = open_page(record, width=800)
    with page.expect_download() as download:
        page.locator("a[download]").click()
    assert '"kind": "bracket"' in Path(download.value.path()).read_text("utf-8")
