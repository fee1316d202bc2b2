"""The live page in a browser, opened as a file: its results beside the command's, files of a
visitor's, errors, the dark, a phone's width, the keyboard.
"""

import os
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "build/wasm/live/index.html"
DEMO = ROOT / "demo"
LIK = os.environ.get("LIK_BIN") or pytest.exit("LIK_BIN must name the lik program", returncode=4)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        # without a sandbox: whoever tests may be root
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Opens the page, some query of it; at the end it must have had no complaint."""
    contexts, complaints = [], []

    def open_page(query="", **options):
        contexts.append(browser.new_context(offline=True, **options))
        contexts[-1].set_default_timeout(120_000)  # a busy machine
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{PAGE.as_uri()}{query}")
        page.wait_for_selector("#results li")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints, complaints


def ranked(*arguments):
    """What `lik score` says: query -> [(document, score)]."""
    files = [DEMO / "queries.safetensors", DEMO / "documents.safetensors"]
    names = ["--query-ids", DEMO / "queries.jsonl", "--ids", DEMO / "documents.jsonl"]
    command = [LIK, "score", *files, *names, "--device", "cpu:generic", "--trec", *arguments]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    found = {}
    for line in done.stdout.splitlines():
        query, _, document, _, score, _ = line.split()
        found.setdefault(query, []).append((document, float(score)))
    return found


def results(page):
    rows = page.eval_on_selector_all("#results li", "all => all.map((x) => [x.dataset.id, x.dataset.score])")
    return [(name, float(score)) for name, score in rows]


def test_results_are_those_of_the_command(opened):
    page = opened()
    for arguments, weighted in (([], True), (["--no-weights"], False)):
        wanted = ranked(*arguments)
        page.locator("#weighted").set_checked(weighted)
        assert page.locator("#query option").count() == len(wanted) == 200
        for query in (1, 17, 60, 200):
            page.select_option("#query", index=query - 1)
            assert results(page) == wanted[f"q{query}"], query
    page.select_option("#level", "generic")
    page.wait_for_function("document.getElementById('status').textContent.includes('generic')")
    assert results(page) == wanted["q200"]


def test_another_level_while_it_is_loaded(opened):
    page = opened("#q17")
    page.evaluate("""() => {
        const level = document.getElementById("level");
        for (level.value of ["generic", "simd128", "generic"]) level.dispatchEvent(new Event("change"));
        document.getElementById("after").click();
    }""")
    page.wait_for_function("document.getElementById('status').textContent.includes('generic')")
    assert page.url.endswith("#q18")


def test_the_match_and_the_keyboard(opened):
    page = opened("#q17")
    assert re.search(r"\d+ query tokens and 36,441 document tokens", page.inner_text("#status"))
    page.locator("#results button").nth(2).focus()
    page.keyboard.press("Enter")
    assert page.locator("#results button[aria-current=true]").count() == 1
    assert results(page)[2][0] in page.inner_text("#about")
    page.locator("summary").click()
    rows = page.locator("#maxima tr").all_inner_texts()
    added = sum(float(row.split("\t")[4]) for row in rows)
    assert abs(added - results(page)[2][1]) < 0.001 * len(rows)
    page.locator("#rows button").first.focus()
    page.keyboard.press("Space")
    assert page.locator("#rows button[aria-pressed=true]").count() == 1
    assert page.locator("#text .winner").count() == 1
    assert page.locator("#text .winner").inner_text() in rows[0].split("\t")[1]
    page.locator("#after").click()
    assert page.url.endswith("#q18")
    assert page.evaluate("document.getElementById('query').selectedIndex") == 17


@pytest.mark.parametrize("allowed", ["'wasm-unsafe-eval'", ""])
def test_the_module_under_a_policy(browser, allowed):
    """As docs/web.md says of a Content-Security-Policy; lik.js finds lik.wasm beside itself."""
    files = {name: (ROOT / "build/wasm" / name).read_bytes() for name in ("lik.js", "lik.wasm")}
    files["index.html"] = b"<script type=module src=main.js></script>"
    files["main.js"] = b"""
        import { load } from "./lik.js";
        const one = { data: new Float32Array([1, 0, 0, 1]), dim: 2, length: 2 };
        load().then((lik) => lik.score(one, one).scores[0], (error) => `${error.name}: ${error.message}`)
            .then((said) => console.log(`said ${said}`));
    """
    policy = f"default-src 'none'; script-src 'self' {allowed}; connect-src 'self'"
    types = {"html": "text/html", "js": "text/javascript", "wasm": "application/octet-stream"}

    def serve(route):
        name = route.request.url.rpartition("/")[2]
        headers = {"Content-Security-Policy": policy, "Content-Type": types[name.rpartition(".")[2]]}
        route.fulfill(body=files[name], headers=headers)

    page = browser.new_page()
    page.route("http://page.test/*", serve)
    with page.expect_console_message(lambda message: message.text.startswith("said ")) as said:
        page.goto("http://page.test/index.html")
    wanted = "said 2" if allowed else "said LikError: http://page.test/lik.wasm cannot be loaded: "
    assert said.value.text.startswith(wanted)
    page.close()


def test_a_phone_in_the_dark(opened):
    page = opened(viewport={"width": 360, "height": 740}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    unnamed = "button, select, input, canvas"
    assert (
        page.evaluate(
            "(which) => [...document.querySelectorAll(which)].filter((x) => !x.labels?.length && "
            "!x.textContent.trim() && !x.getAttribute('aria-label')).map((x) => x.outerHTML)",
            unnamed,
        )
        == []
    )


def drop(page, *files):
    """As if dropped on the page."""
    page.evaluate(
        """(files) => {
            const transfer = new DataTransfer();
            for (const [name, bytes] of files) transfer.items.add(new File([new Uint8Array(bytes)], name));
            document.getElementById("drop").dispatchEvent(
                new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        [[path.name, list(path.read_bytes())] for path in files],
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_files_that_are_dropped(opened, tmp_path, dtype):
    random = np.random.default_rng(3)
    q, d = tmp_path / "queries.npy", tmp_path / "documents.npy"
    np.save(q, (random.standard_normal((3, 5, 24)) * 20).astype(dtype))
    np.save(d, (random.standard_normal((9, 13, 24)) * 20).astype(dtype))
    command = [LIK, "score", q, d, "--device", "cpu:generic", "-k", "5", "--trec"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout
    wanted = [(line.split()[2], line.split()[4]) for line in done.splitlines()]
    page = opened()
    drop(page, d, q)
    page.wait_for_selector("#own-results tr")
    texts = page.locator("#own-results td:nth-child(2)").all_inner_texts()
    found = [pair for text in texts for pair in re.findall(r"(\d+) \((\S+)\)", text)]
    assert [(i, float(x)) for i, x in found] == [(i, float(x)) for i, x in wanted]
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "page.npy")
    subprocess.run(
        [*map(str, [*command[:4], "--device", "cpu:generic", "--all", "-o", tmp_path / "all.npy"])],
        check=True,
    )
    assert (np.load(tmp_path / "page.npy") == np.load(tmp_path / "all.npy")).all()


def test_files_are_taken_in_their_order(opened, tmp_path):
    first, second = tmp_path / "slow-q.npy", tmp_path / "q.npy"
    np.save(first, np.ones((2, 3, 5), np.float32))
    np.save(second, np.ones((2, 3, 4), np.float32))
    page = opened()
    page.evaluate("""() => {
        const read = Blob.prototype.arrayBuffer;
        window.read = 0;
        Blob.prototype.arrayBuffer = async function () {
            await new Promise((done) => setTimeout(done, this.name.startsWith("slow") ? 500 : 0));
            return read.call(this).finally(() => window.read++);
        };
    }""")
    page.set_input_files("#file-queries", first)
    page.set_input_files("#file-queries", second)
    page.wait_for_function("window.read === 2")
    page.wait_for_timeout(50)
    assert " q.npy [2, 3, 4]" in page.inner_text("#own-status")


def test_files_that_are_refused(opened, tmp_path):
    page = opened()
    good, other, flat = tmp_path / "q.npy", tmp_path / "d.npy", tmp_path / "flat.npy"
    np.save(good, np.ones((2, 3, 4), np.float32))
    np.save(other, np.ones((3, 5), np.float32))
    np.save(flat, np.ones(5, np.float32))
    text = tmp_path / "x.npy"
    text.write_text("no vectors at all")
    html = tmp_path / "<img src=x onerror=console.log(name)>.npy"
    html.write_text("no vectors either")
    for files, said in (
        ((html,), f"{html.name}: no .npy file"),
        ((good, other), "d.dim is 5, q.dim is 4"),
        ((text,), "x.npy: no .npy file"),
        ((flat,), "flat.npy: shape (5), must be [sequences, tokens, dim]"),
        ((good, good, good), "3 files, must be one or two"),
    ):
        drop(page, *files)
        page.wait_for_function(
            "(said) => document.getElementById('own-status').textContent.includes(said)", arg=said
        )
        assert page.locator("#own-status.error").count() == 1
        assert page.locator("#own-status *").count() == 0
        assert page.locator("#download").is_disabled()
    page.set_input_files("#file-queries", good)
    page.set_input_files("#file-documents", good)
    page.wait_for_selector("#own-results tr")
    assert page.locator("#own-status.error").count() == 0
