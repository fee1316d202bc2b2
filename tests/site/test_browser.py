"""The documentation site in a browser, as plain files: Debian's chromium, headless.

Every page: no error on the console, nothing fetched from elsewhere, links that lead somewhere,
no horizontal scrolling on a phone, an accessibility pass (axe-core) in light and in dark. The
figures step by keyboard, the plots draw and filter, search finds.

    python -m pytest tests/site/test_browser.py            # after `make docs`
"""

import functools
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

SITE = Path(__file__).resolve().parents[2] / "build/site"
PAGES = sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html") if "live" not in p.parts)
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
FIGURES = ["tiles", "maximum", "ring", "winners", "decode"]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
LARGE = 3000  # elements of a page: of larger ones the colors of code and of the dark are not looked at


class Links(HTMLParser):
    """A page's ids and the addresses that it names."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[key] for key in ("id", "name") if found.get(key)}
        self.links += [found[key] for key in ("href", "src") if found.get(key)]


@functools.cache
def parsed(path):
    return Links(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as p:
        made = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield made
        made.close()


class Visit:
    """A page in a browser, and what went wrong on it."""

    def __init__(self, browser, path, size=DESK, scheme="light", motion="reduce"):
        self.context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion=motion)
        self.context.set_default_timeout(120_000)
        self.page, self.wrong = self.context.new_page(), []
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.wrong.append(m.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("requestfailed", lambda request: self.wrong.append(f"not loaded: {request.url}"))
        self.page.on("request", lambda r: r.url.startswith("http") and self.wrong.append(f"fetched: {r.url}"))
        self.page.goto((SITE / path).as_uri())

    def __enter__(self):
        return self.page

    def __exit__(self, *error):
        self.context.close()
        if not any(error):
            assert not self.wrong


def overflow(page):
    """What is wider than the window, unless it scrolls by itself."""
    return page.evaluate("""() => document.documentElement.scrollWidth <= innerWidth ? [] :
        [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
            .slice(0, 5).map(e => e.outerHTML.slice(0, 120))""")


def is_large(page):
    return page.evaluate("document.querySelectorAll('*').length") > LARGE


def violations(page, **only):
    options = {
        "runOnly": only or {"type": "tag", "values": RULES},
        "resultTypes": ["violations"],
        "preload": False,
    }
    context = {"exclude": [[".highlight"]]} if is_large(page) else None
    found = Axe().run(page, context=context, options=options).response["violations"]
    return [f"{v['id']}: {n['html'][:160]}" for v in found for n in v["nodes"][:3]]


def test_there_are_pages():
    assert len(PAGES) > 25 and "index.html" in PAGES


@pytest.mark.parametrize("path", PAGES)
def test_page(browser, path):
    with Visit(browser, path, PHONE, "light") as page:
        assert page.title()
        assert not overflow(page)
        assert not violations(page)
    with Visit(browser, path, PHONE, "dark") as page:
        red, green, blue = map(
            int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
        )
        assert red + green + blue < 200
        assert is_large(page) or not violations(page, type="rule", values=["color-contrast"])


@pytest.mark.parametrize("path", PAGES)
def test_links(path):
    base, broken = (SITE / path).as_uri(), []
    for link in parsed(SITE / path).links:
        if re.match(r"(data|mailto|javascript):", link):
            continue
        address, fragment = urldefrag(urljoin(base, link))
        if not address.startswith("file:"):
            continue  # to be followed with a network; nothing of the page comes from there
        target = Path(unquote(address.removeprefix("file://")))
        if not target.is_file():
            broken.append(link)
        elif fragment and target.suffix == ".html" and not fragment.startswith("__"):
            if unquote(fragment) not in parsed(target).ids:
                broken.append(link)
    assert not broken


@pytest.mark.parametrize("name", FIGURES)
def test_figure_steps(browser, name):
    with Visit(browser, "how-it-works.html") as page:
        figure = page.locator(f'[data-figure="{name}"]')
        look = "e => [e.querySelector('svg').innerHTML, e.querySelector('p').innerText, e.dataset.step]"
        picture = lambda: figure.evaluate(look)
        figure.focus()
        page.keyboard.press("End")
        last = int(figure.get_attribute("data-step"))
        assert last >= 5
        end = picture()
        page.keyboard.press("Home")
        seen = [picture()]
        for step in range(1, last + 1):
            page.keyboard.press("ArrowRight")
            seen.append(picture())
            assert seen[-1][2] == str(step)
            assert seen[-1][:2] != seen[-2][:2], f"step {step} shows nothing new"
        assert len({drawing for drawing, _, _ in seen}) > last / 2
        assert seen[-1] == end
        page.keyboard.press("ArrowLeft")
        assert picture() == seen[-2]
        page.keyboard.press("Home")
        page.keyboard.press(" ")  # motion is reduced: a step, nothing plays
        assert figure.get_attribute("data-step") == "1"
        figure.get_by_role("button", name="Next step").click()
        assert figure.get_attribute("data-step") == "2"


def test_figure_plays(browser):
    with Visit(browser, "how-it-works.html", motion="no-preference") as page:
        figure = page.locator('[data-figure="tiles"]')
        figure.get_by_role("button", name="Play the steps").click()
        page.wait_for_function("document.querySelector('[data-figure=tiles]').dataset.step === '2'")
        figure.get_by_role("button", name="Pause").click()


def test_plots(browser):
    with Visit(browser, "benchmarks.html") as page:
        bars = page.locator(".lik-plots svg rect")
        everything = bars.count()
        assert everything > 50
        page.get_by_label("Cases with").fill("f16")
        assert 0 < bars.count() < everything
        page.get_by_label("Program or storage").select_option("lik")
        few = bars.count()
        assert 0 < few == page.locator(".lik-case").count()
        page.locator(".lik-plots svg g").first.hover()
        tip = page.locator(".lik-tip")
        assert tip.is_visible() and re.search(r"lik: [\d.]+ .s.*, 20\d\d-\d\d-\d\d$", tip.inner_text())
        page.get_by_label("Cases with").fill("")
        table, tables = page.locator(".lik-choose select").nth(1), set()
        for machine in page.get_by_label("Machine").locator("option").all()[1:]:
            page.get_by_label("Machine").select_option(machine.get_attribute("value"))
            for option in table.locator("option").all():
                table.select_option(option.get_attribute("value"))
                about = page.locator(".lik-about").inner_text()
                assert about.startswith(machine.inner_text()) and bars.count() > 5
                widths = [float(bar.get_attribute("width")) for bar in bars.all()[:20]]
                assert min(widths) > 0 and all(w == w for w in widths)
                tables.add(about)
        assert len(tables) >= 8


def test_search(browser):
    with Visit(browser, "index.html") as page:
        page.get_by_role("textbox", name="Search").press_sequentially("argmax")
        page.locator(".md-search-result__item").first.wait_for()
        assert page.locator(".md-search-result__item").count() > 3


def test_switch_to_dark(browser):
    with Visit(browser, "index.html") as page:
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.get_by_title("Switch to dark").click()
        page.wait_for_function(f"getComputedStyle(document.body).backgroundColor !== '{before}'")


@pytest.mark.skipif(not (SITE / "live/index.html").exists(), reason="the live page was not built: make wasm")
def test_live_page_loads(browser):
    with Visit(browser, "live/index.html") as page:
        assert page.title()
