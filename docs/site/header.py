"""The page of lik.h, from the header itself: a declaration with the comment before it, under
its name, and links between them.
"""

import re

INTRO = """# C, lik.h

Made from `include/lik/lik.h`, whole: prose is the header's comments. [The guide to serving](guides/serve.md)
begins with a program.
"""
# Where a section begins: a title, and the first name in it.
SECTIONS = {
    "lik_status": "Values",
    "lik_strides": "Tokens",
    "lik_score": "Problems",
    "lik_exec": "How to run",
    "lik_context": "Contexts, memory, streams",
    "lik_score_plan": "Operations",
    "lik_merge_topk": "Helpers",
}


def marked(words, places):
    """Words outside code: names as code, those with a place on the page as links to it;
    and what markdown would read as its own is not.
    """

    def name(match):
        place = places.get(match[2])
        return f"[`{match[0]}`](#{place})" if place else f"`{match[0]}`"

    words = re.sub(r"([*<\[])", r"\\\1", words)
    return re.sub(r"\b(struct )?((?:lik|LIK)_\w+)\b", name, words)


def comment_text(comment, places):
    """The words of a C comment as markdown: paragraphs, lists, indented lines as code."""
    lines = [re.sub(r"^\s*\* ?", "", line) for line in comment[2:-2].split("\n")]
    lines[0] = lines[0].strip()
    out, before = [], ""
    for line in lines:
        line = line.rstrip()
        if line.startswith("- ") and before and not before.startswith("- "):
            out.append("")
        if not line.startswith("    "):
            halves = re.split(r"(`[^`]*`)", line)
            halves = [h if h.startswith("`") else marked(h, places) for h in halves]
            line = "".join(halves)
        elif before and not before.startswith("    "):
            out.append("")
        out.append(line)
        before = line
    return "\n".join(out).strip()


def declarations(text):
    """(comment, code) of what stands in the header, in order. A blank line ends a declaration
    outside braces and comments; the declarations that follow without one belong to it.
    """
    blocks, comment, code, depth = [], "", [], 0
    lines = iter(text.split("\n"))
    for line in lines:
        if depth == 0 and not code and line.startswith("/*"):
            comment = line
            while "*/" not in line:
                line = next(lines)
                comment += "\n" + line
        elif line.strip() or depth:
            code.append(line)
            depth += line.count("{") - line.count("}")
        elif code:
            blocks.append((comment, "\n".join(code)))
            comment, code = "", []
        elif comment:
            blocks.append((comment, ""))
            comment = ""
    return blocks


def names_of(code):
    """What a declaration declares."""
    struct = re.match(r"(?:enum|struct) (lik_\w+)", code)
    plain = re.sub(r"/\*.*?\*/|\([^()]*\(\*.*", "", code)
    names = [struct[1]] if struct else re.findall(r"\b(lik_\w+)\(", plain)
    names = names or re.findall(r"#define (\w+)", code)
    if not names:
        raise ValueError(f"a declaration of lik.h without a name: {code[:60]!r}")
    return list(dict.fromkeys(names))


def header_page(path):
    text = path.read_text()
    top, rest = text.split("#ifndef LIK_H", 1)
    begin, end = rest.index("enum lik_status"), rest.rindex("#ifdef __cplusplus")
    blocks = [(names_of(code), comment, code) for comment, code in declarations(rest[begin:end] + "\n\n")]
    places = {name: names[0] for names, _, _ in blocks for name in names}
    page = [INTRO, comment_text(top.strip(), places)]
    for names, comment, code in blocks:
        if names[0] in SECTIONS:
            page.append(f"## {SECTIONS[names[0]]}")
        title = ", ".join(f"`{n}`" for n in names[:2]) + (" ..." if len(names) > 2 else "")
        prose = comment_text(comment or "/**/", places)
        page.append(f"### {title} {{ #{names[0]} }}\n\n{prose}\n\n```c\n{code}\n```")
    return "\n\n".join(page) + "\n"
