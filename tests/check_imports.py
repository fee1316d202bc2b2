"""Checks the import arrows of the Python package: a module imports only modules above it in
ORDER, in functions and for type checkers too, so that no two import each other.

Prints each violation as FILE:LINE and returns 1 if there is one, or a module that ORDER does
not have, or the other way round.
"""

import ast
import sys
from pathlib import Path

PACKAGE = "late_interaction_kernels"
FOLDER = Path(__file__).resolve().parent.parent / "python" / PACKAGE

ORDER = """
_native
_engine
_engine.kinds
_engine.environment
_engine.problem
_engine.numpy_arrays
_engine.torch_arrays
_engine.native
_engine.torch_plain
_engine.torch_metal
_engine.torch_mps
_engine.torch_ops
_engine.verbs
_engine.checks
_engine.compressed
_engine.torch_blocks
_engine.blocks
_engine.short
autograd
varlen
packing
score_pairs
padded
files
forward
exact
topk
_scorer
retrieve
int8
_command
_explain
fp8
fused_head
reference
plaid
backward.unified
backward.lowmem
backward
mps.metal
mps.compile_dispatch
mps
_hosts
_hosts.pylate
_hosts.colpali
_hosts.sentence_transformers
pylate_compat
colpali_compat
sentence_transformers_compat

""".split("\n")[1:-1]  # the last, empty name is the package itself


def name_of(path: Path) -> str:
    """A module's name within the package."""
    parts = path.relative_to(FOLDER).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_among(dotted: str, modules: set[str]) -> str:
    """The module of a dotted path that may end with a name in it."""
    while dotted not in modules:
        dotted = dotted.rpartition(".")[0]
    return dotted


def imports(path: Path, modules: set[str]) -> list[tuple[int, str]]:
    """(line, module of the package) of each import."""
    name, found = name_of(path), []
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            whole = [alias.name.split(".") for alias in node.names if alias.name.split(".")[0] == PACKAGE]
            found += [(node.lineno, ".".join(parts[1:])) for parts in whole]
        elif isinstance(node, ast.ImportFrom):
            source = (node.module or "").split(".") if node.module else []
            if node.level:
                source = [*package[: len(package) - node.level + 1], *source]
            elif source[0] == PACKAGE:
                source = source[1:]
            else:
                continue
            found += [(node.lineno, ".".join(filter(None, [*source, alias.name]))) for alias in node.names]
    return [(line, module_among(dotted, modules)) for line, dotted in found]


def main() -> int:
    paths = {name_of(path): path for path in sorted(FOLDER.rglob("*.py"))}
    place = {name: i for i, name in enumerate(ORDER)}
    found = [f"{name or PACKAGE}: has no place in the order" for name in paths if name not in place]
    found += [
        f"{name}: is in the order, but there is no such module" for name in ORDER[1:] if name not in paths
    ]
    for name, path in paths.items():
        for line, imported in imports(path, {*paths, "_native"}):
            if place.get(imported, -1) >= place.get(name, len(ORDER)):
                where = path.relative_to(FOLDER.parent.parent)
                found.append(f"{where}:{line}: must not import {imported or PACKAGE}, which stands below it")
    print("\n".join(found) or f"check_imports: {len(paths)} modules, all arrows point one way")
    return 1 if found or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
