"""The page of the package's functions, from its sources: signatures and docstrings are read,
nothing is imported. Sections of a docstring are those of Google's style.
"""

import ast
import re
import textwrap

# What stands on the page, in this order: a title, a module, names (all of __all__ if none).
GROUPS = [
    ("Scores", "autograd", ["maxsim", "maxsim_pairs"]),
    ("Packed tokens", "packing", ["pack", "unpack"]),
    ("", "varlen", ["maxsim_varlen"]),
    ("", "padded", ["maxsim_padded", "pack_padded", "PackedBatch"]),
    ("", "score_pairs", ["score_pairs_packed"]),
    ("The k best", "retrieve", ["retrieve"]),
    ("", "topk", ["maxsim_topk"]),
    ("", "exact", ["two_copies", "TwoCopies"]),
    ("Options bound", "_scorer", ["MaxSimScorer"]),
    ("8 bits", "int8", []),
    ("", "fp8", []),
    ("Compressed tokens", "plaid", []),
    ("From hidden states", "fused_head", ["maxsim_from_hidden"]),
    ("Files", "files", ["save", "load", "Saved"]),
    ("Which tokens matched", "_explain", ["explain", "Explanation", "Match"]),
    ("Hosts", "pylate_compat", ["patch_pylate", "unpatch_pylate"]),
    ("", "colpali_compat", ["patch_colpali_engine", "unpatch_colpali_engine"]),
    ("", "sentence_transformers_compat", ["patch_sentence_transformers", "unpatch_sentence_transformers"]),
    ("What is installed", "__init__", ["show_config"]),
    ("Differentiable definitions", "reference", []),
]
INTRO = """# Python, every function

Made from the docstrings of the package. [python.md](python.md) tells which function fits which data. `lik` is
`late_interaction_kernels`; arrays are NumPy's or torch's, and the result is of the kind that was given.
"""


def definitions(path, package):
    """{name: node} of a module's functions and classes, the last definition counting; those
    that it imports from another module of the package are looked up there.
    """
    tree, found = ast.parse(path.read_text()), {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            other = package / (node.module.replace(".", "/") + ".py")
            for name in node.names:
                if path.parent == package and other.exists() and name.name == (name.asname or name.name):
                    found.setdefault(name.name, (other, name.name))
    for name, node in list(found.items()):
        if isinstance(node, tuple):
            found[name] = definitions(node[0], package)[0].get(node[1])
    listed = [
        n for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"
    ]
    return found, ast.literal_eval(listed[0].value) if listed else []


def signature(name, node):
    """The definition as one would call it, a parameter a line if they are many."""
    if isinstance(node, ast.ClassDef):
        made = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if not made:
            fields = [ast.unparse(n) for n in node.body if isinstance(n, ast.AnnAssign)]
            return f"class {name}:\n" + "\n".join(f"    {f}" for f in fields) if fields else f"class {name}"
        node = made[0]
    args = [ast.unparse(part).replace(": Any", "") for part in split_arguments(node.args)]
    args = [re.sub(r"(: .*?[^=])=", r"\1 = ", a) for a in args if a != "self"]
    back = ast.unparse(node.returns) if node.returns else "None"
    back = "" if back in ("None", "Any") else f" -> {back}"
    one_line = f"{name}({', '.join(args)}){back}"
    if len(one_line) <= 88:
        return one_line
    return f"{name}(\n" + "".join(f"    {a},\n" for a in args) + f"){back}"


def split_arguments(args):
    """Each parameter of a signature by itself, with its default."""
    plain = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(plain) - len(args.defaults)) + args.defaults
    empty = {"posonlyargs": [], "kwonlyargs": [], "kw_defaults": [], "defaults": []}
    for arg, default in zip(plain, defaults, strict=True):
        yield ast.arguments(args=[arg], **{**empty, "defaults": [default] if default else []})
    if args.vararg:
        yield ast.arguments(args=[], vararg=args.vararg, **empty)
    elif args.kwonlyargs:
        yield ast.Name("*")
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        if default is None:
            yield arg
        else:
            yield ast.arguments(args=[arg], **{**empty, "defaults": [default]})
    if args.kwarg:
        yield ast.arguments(args=[], kwarg=args.kwarg, **empty)


def inline(text):
    """Docstring markup as markdown."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text)
    text = re.sub(r"``([^`]*)``", r"`\1`", text)
    outside = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([*_<\[])", r"\\\1", p) for p in outside)


def entries(lines):
    """`name: what it is`, indented lines continuing it, as a list."""
    out = []
    for line in lines:
        if line and not line.startswith(" "):
            name, colon, rest = line.partition(":")
            out.append(
                f"- **`{name}`**: {inline(rest.strip())}"
                if colon and re.fullmatch(r"[\w, .*]+", name)
                else f"- {inline(line)}"
            )
        elif out:
            out[-1] += " " + inline(line.strip())
    return "\n".join(out)


SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples|Note|Warns):$")


def parts(docstring):
    """(section or None, text) of a docstring: a section lasts as long as lines are indented."""
    section, lines = None, []
    for line in [*docstring.split("\n"), None]:
        heading = line is not None and SECTION.match(line)
        ends = section and line and not line.startswith(" ")
        if line is None or heading or ends:
            if "".join(lines).strip():
                yield section, textwrap.dedent("\n".join(lines)).strip()
            section, lines = (line[:-1] if heading else None), []
        if line is not None and not heading:
            lines.append(line)


def prose(docstring):
    out = []
    for section, text in parts(docstring):
        if section in ("Args", "Attributes", "Raises"):
            out.append(f"**{section}:**\n\n{entries(text.splitlines())}")
        elif section in ("Example", "Examples"):
            out.append(f"```pycon\n{text}\n```")
        elif section:
            out.append(f"**{section}:** {inline(text)}")
        else:
            out += [
                inline(p) if ">>>" not in p else f"```pycon\n{p}\n```" for p in re.split(r"\n\s*\n", text)
            ]
    return "\n\n".join(out)


def python_page(root):
    package, page = root / "python/late_interaction_kernels", [INTRO]
    of_package = definitions(package / "__init__.py", package)[1]
    for title, module, names in GROUPS:
        found, listed = definitions(package / f"{module}.py", package)
        if title:
            page.append(f"## {title}")
        for name in names or listed:
            node = found.get(name)
            if node is None and not names:
                continue
            text = ast.get_docstring(node) if node else None
            if not text:
                raise ValueError(f"{module}.{name} has no docstring, or is not there")
            place = (
                f"lik.{name}" if name in of_package else f"lik.{module}.{name}".removeprefix("lik._explain.")
            )
            page.append(
                f"### {place} {{ #{name} }}\n\n```python\n{signature(name, node)}\n```\n\n{prose(text)}"
            )
    return "\n\n".join(page) + "\n"
