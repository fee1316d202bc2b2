"""What mkdocs does besides turning docs/*.md into pages, for `make docs`.

- Files of the repository that a page links to outside docs/ come along below repo/, pages as
  pages, folders as lists of their files, and the links lead there. One that does not exist is
  a warning, which strict builds refuse: so links hold on a code host and on the site.
- The pages of the Python functions and of lik.h are made from the sources, and the figures of
  the benchmarks from bench/results.
- Pages of docs/ without a place in the navigation get one; so does the live page, if it was
  built (`make wasm`).
"""

import logging
import posixpath
import re
import shutil
from pathlib import Path

from api import python_page
from figures import figures_script, tables
from header import header_page
from mkdocs.structure.files import File
from mkdocs.structure.nav import Link

ROOT = Path(__file__).resolve().parents[2]
LIVE = ROOT / "build/wasm/live"
ALSO = ["examples/README.md", "CHANGELOG.md", "SECURITY.md"]  # of the repository, where there are
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?(?:\s+\"[^\"]*\")?\))")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.M | re.S)
LOG = logging.getLogger("mkdocs.hooks.site")


def in_repository(uri):
    """The place in the repository of a page of the site."""
    return uri.removeprefix("repo/") if uri.startswith("repo/") else f"docs/{uri}"


def site_place(path):
    """The place on the site of a file of the repository; the header's is its page, that of a
    folder a list of its files.
    """
    if (ROOT / path).is_dir():
        return f"repo/{path}/index.md"
    if path == "include/lik/lik.h":
        return "api-c.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"repo/{path}"


def resolved(path, link):
    """The file of the repository that a link in file `path` names; None if it is an address."""
    if re.match(r"[a-z]+:|/", link):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def links(text):
    """The targets of the links in a page, code apart."""
    return [m[2] for part in CODE.split(text)[::2] for m in LINK.finditer(part)]


def on_files(files, config):
    files.append(File.generated(config, "api-python.md", content=python_page(ROOT)))
    files.append(File.generated(config, "api-c.md", content=header_page(ROOT / "include/lik/lik.h")))
    files.append(File.generated(config, "site/figures.js", content=figures_script(ROOT / "bench/results")))
    data = [f"bench/results/{table['file']}" for table in tables(ROOT / "bench/results")]
    last = next(iter(config.nav[-1].values()))
    last += [site_place(path) for path in ALSO if (ROOT / path).exists()]
    named = [item for entry in config.nav for item in leaves(entry)]
    pages = [in_repository(uri) for uri in (*named, *files.src_uris) if uri.endswith(".md")] + data
    seen = {in_repository(uri) for uri in files.src_uris}
    while pages:
        path = pages.pop()
        if path not in seen and site_place(path) not in files.src_uris:
            seen.add(path)
            if (ROOT / path).is_dir():
                inside = sorted(p.name for p in (ROOT / path).iterdir() if p.is_file())
                content = f"# {path}\n\n" + "".join(f"- [{name}]({name})\n" for name in inside)
                files.append(File.generated(config, site_place(path), content=content))
                pages += [f"{path}/{name}" for name in inside]
                continue
            if not (ROOT / path).is_file():
                LOG.warning("%s is linked to, and does not exist", path)
                continue
            files.append(File.generated(config, site_place(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md") and (ROOT / path).is_file():
            found = [resolved(path, link) for link in links((ROOT / path).read_text())]
            pages += [f for f in found if f and f not in seen and f not in pages]
    others = {uri for uri in files.src_uris if uri.endswith(".md") and not uri.startswith("repo/")}
    last += sorted(others - set(named))
    return files


def leaves(entry):
    if isinstance(entry, str):
        return [entry]
    return [
        leaf
        for value in entry.values()
        for e in (value if isinstance(value, list) else [value])
        for leaf in leaves(e)
    ]


def on_page_markdown(markdown, page, config, files):
    here = in_repository(page.file.src_uri)

    def moved(match):
        path = resolved(here, match[2])
        if not path:
            return match[0]
        uri = posixpath.relpath(site_place(path), posixpath.dirname(page.file.src_uri) or ".")
        return match[1] + uri + match[3]

    parts = CODE.split(markdown)
    return "".join(part if i % 2 else LINK.sub(moved, part) for i, part in enumerate(parts))


def on_page_content(html, page, config, files):
    """Tables and drawings that are wider than a phone scroll by themselves: also by keys."""
    html = re.sub(r'<p>(?=<img [^>]*\.svg")', '<p class="lik-wide" tabindex="0">', html)
    return html.replace("<table>", '<table tabindex="0">')


def on_post_page(output, page, config):
    """The theme's two hidden check boxes have no names."""
    return re.sub(r'data-md-toggle="(drawer|search)"', r'\g<0> aria-label="\1"', output)


def on_nav(nav, config, files):
    if LIVE.is_dir():
        nav.items.insert(2, Link("Live, in the browser", "live/index.html"))
    return nav


def on_post_build(config):
    site = Path(config.site_dir)
    (site / "404.html").unlink()  # for servers alone: its links begin at the root
    shutil.rmtree(site / "assets/javascripts/lunr")  # other languages: a third of the site
    for path in site.rglob("*.map"):
        path.unlink()
    if LIVE.is_dir():
        shutil.copytree(LIVE, site / "live", dirs_exist_ok=True)
        page = site / "live/index.html"  # which knows of no site by itself
        back = '<header>\n<p><a href="../index.html">Documentation</a></p>'
        page.write_text(page.read_text("utf-8").replace("<header>", back, 1), "utf-8")
