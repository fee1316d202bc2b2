#!/usr/bin/env python3
"""The public surface of this package beside that of the existing one, late-interaction-kernels
0.4.5.

`surface.json` holds the facts about the existing package: its public modules, what they export,
every parameter with its kind and default, return annotations, the fields of classes. They are
taken from its source distribution without running it: `surface.py --make SDIST`. Ours are taken
from the installed package. Every difference must be explained in MEANT, and every explanation
there must explain one. Run without arguments it prints the differences and the counts.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

PACKAGE = "late_interaction_kernels"
FACTS = Path(__file__).with_name("surface.json")

# Difference, * standing for anything -> why it is meant.
MEANT = {
    "*: returns torch.Tensor -> Any": "the same functions serve NumPy: an array of the kind that was given",
    "*: returns torch.Tensor -> Array": "likewise, with a name for type checkers",
    "*: returns tuple[torch.Tensor, torch.Tensor] -> tuple[A*, A*]": "likewise",
    "mps.metal.maxsim_*_metal: returns * -> *Any*": "likewise",
    "*retrieve: returns tuple[torch.Tensor, torch.Tensor] -> Any": "two, and a third with return_argmax",
    "topk.maxsim_topk: returns tuple[torch.Tensor, torch.Tensor] -> Any": "two, a third with return_argmax",
    "*(q_mask): added, keyword_only = None": "hidden-state and PLAID functions mask queries as others do",
    "*(q_weights): added, keyword_only = None": "a factor for each query token; off by default",
    "*(return_argmax): added, keyword_only = False": "which token matched; off by default",
    "*(storage): added, keyword_only = None": "documents as int8 or fp8; off by default",
    "*(exact): added, keyword_only = False": "top-k of documents in two copies",
    "*(normalize): added, keyword_only = False": "packed and padded functions normalize too, if asked",
    "*(bit_order): added, keyword_only = 'low-first'": "the bytes of ColBERT's and fast-plaid's indexes too",
    "*(inv_norms): added, keyword_only = None": "norms that are known need not be taken",
    "plaid.Codec: added": "what makes and reads compressed tokens; the existing package reads them alone",
    "plaid.*codec: added": "likewise",
    "plaid.*code: added": "likewise",
    "plaid.CompressedTokens: added": "compressed documents where a function takes documents",
    "fp8.quantize_fp8_per_t*(dtype): default torch.float8_e4m3fn -> None": "it is meant; torch is optional",
    "*(cu_seqlens_*): added, keyword_only = None": "packed tokens where padded ones are taken",
    "*(max_seqlen_*): added, keyword_only = None": "likewise",
    "*MaxSimScorer.*(packing): added, var_keyword = None": "likewise",
    "*pack: added": "packed tokens of a list",
    "packing: added module": "likewise",
    "show_config: added": "which build this is",
    "explain: added": "the command's heat map in notebooks",
    "save: added": "documents in files",
    "load: added": "likewise",
    "files: added module": "likewise",
    "int8: added module": "int8 documents with a scale a token",
    "exact: added module": "top-k of documents in two copies",
    "sentence_transformers_compat: added module": "a third host",
    "*patch_sentence_transformers: added": "a third host",
}


# ---- the existing package, from its source ----


def _parameters(arguments: ast.arguments) -> list[list[str | None]]:
    """[name, kind, default as text or None] of each."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    defaults += arguments.defaults
    found: list[list[str | None]] = []
    for i, (argument, default) in enumerate(zip(positional, defaults)):
        kind = "positional_only" if i < len(arguments.posonlyargs) else "positional_or_keyword"
        found.append([argument.arg, kind, default and ast.unparse(default)])
    if arguments.vararg:
        found.append([arguments.vararg.arg, "var_positional", None])
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults):
        found.append([argument.arg, "keyword_only", default and ast.unparse(default)])
    if arguments.kwarg:
        found.append([arguments.kwarg.arg, "var_keyword", None])
    return found


def _described(node: ast.stmt) -> dict[str, Any]:
    if isinstance(node, ast.FunctionDef):
        returns = node.returns and ast.unparse(node.returns)
        return {"kind": "function", "parameters": _parameters(node.args), "returns": returns}
    if isinstance(node, ast.ClassDef):
        methods = {
            member.name: _described(member)
            for member in node.body
            if isinstance(member, ast.FunctionDef) and (member.name[0] != "_" or member.name[:2] == "__")
        }
        fields = [member.target.id for member in node.body if isinstance(member, ast.AnnAssign)]
        return {"kind": "class", "fields": fields, "methods": methods}
    return {"kind": "value"}


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements of a module, with those under `if` and `try` whose condition holds where
    everything is installed.
    """
    found: list[ast.stmt] = []
    for node in body:
        nested = node.body if isinstance(node, ast.If | ast.Try) else None
        found += [node] if nested is None else _statements(nested)
    return found


def _source_facts(text: str) -> dict[str, Any]:
    """Of one module: {name: record} of what it exports or defines. A name from another module
    is {"kind": "same", "as": "module.name"}."""
    defined: dict[str, Any] = {}
    exported: list[str] = []
    for node in _statements(ast.parse(text).body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined[node.name] = _described(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name) and target.id == "__all__":
                    exported = ast.literal_eval(node.value)
                elif isinstance(target, ast.Name):
                    defined[target.id] = _described(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            origin = (node.module or "").removeprefix(PACKAGE).lstrip(".")
            for alias in node.names:
                full = f"{origin}.{alias.name}" if origin else alias.name
                defined[alias.asname or alias.name] = {"kind": "same", "as": full}
    own = [k for k, v in defined.items() if k[0] != "_" and v["kind"] != "same"]
    return {k: defined[k] for k in dict.fromkeys([*exported, *own])}


def make(sdist: Path) -> dict[str, Any]:
    modules: dict[str, Any] = {}
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            parts = Path(member.name).parts[1:]
            if parts[:1] != (PACKAGE,) or member.name[-3:] != ".py":
                continue
            package = parts[-1] == "__init__.py"
            path = parts[1:-1] if package else (*parts[1:-1], parts[-1][:-3])
            if any(part[0] == "_" for part in path):
                continue
            file = archive.extractfile(member)
            assert file is not None
            modules[".".join(path)] = _source_facts(file.read().decode())
    for names in modules.values():
        for name, record in names.items():
            if record["kind"] == "same":
                owner, _, attribute = record["as"].rpartition(".")
                there = modules.get(owner, {}).get(attribute, record)
                names[name] = {"kind": "module"} if there is record else there
    return {"version": re.search(r"-([0-9.]+)\.tar", sdist.name)[1], "modules": dict(sorted(modules.items()))}


# ---- ours, from the package itself ----


def _function(value: Any) -> dict[str, Any]:
    signature = inspect.signature(value)
    parameters = [
        [p.name, p.kind.name.lower(), None if p.default is p.empty else repr(p.default)]
        for p in signature.parameters.values()
    ]
    returns = signature.return_annotation
    return {
        "kind": "function",
        "parameters": parameters,
        "returns": None if returns is signature.empty else returns,
    }


def _record(value: Any) -> dict[str, Any]:
    if inspect.ismodule(value):
        return {"kind": "module"}
    if inspect.isclass(value):
        methods = {
            name: _function(member)
            for name, member in vars(value).items()
            if inspect.isfunction(member) and (name[0] != "_" or name[:2] == "__")
        }
        fields = list(getattr(value, "_fields", ()))  # of a NamedTuple
        if dataclasses.is_dataclass(value):
            fields = [f.name for f in dataclasses.fields(value)]
        return {"kind": "class", "fields": fields, "methods": methods}
    return _function(value) if inspect.isfunction(value) else {"kind": "value"}


def ours(theirs: dict[str, Any]) -> dict[str, Any]:
    """{module: {name: record}} of what our modules export, and of the others' names that they
    have.
    """
    package = importlib.import_module(PACKAGE)
    names = [""] + [
        m.name.removeprefix(PACKAGE + ".") for m in pkgutil.walk_packages(package.__path__, PACKAGE + ".")
    ]
    modules: dict[str, Any] = {}
    for name in names:
        if any(part[:1] == "_" for part in name.split(".")):
            continue
        module = importlib.import_module(f"{PACKAGE}.{name}" if name else PACKAGE)
        exported = {*getattr(module, "__all__", ()), *(n for n in theirs.get(name, ()) if hasattr(module, n))}
        modules[name] = {key: _record(getattr(module, key)) for key in sorted(exported)}
    return modules


# ---- the comparison ----


def _same_default(theirs: str | None, our: str | None) -> bool:
    if theirs is None or our is None:
        return theirs is our
    try:
        return repr(ast.literal_eval(theirs)) == our
    except ValueError:
        return theirs == our


def _compare_functions(name: str, theirs: dict[str, Any], our: dict[str, Any]) -> list[str]:
    found = []
    left, right = ({p[0]: p for p in side["parameters"]} for side in (theirs, our))
    for parameter, (_, kind, default) in left.items():
        if parameter not in right:
            found.append(f"{name}({parameter}): missing")
            continue
        _, our_kind, our_default = right[parameter]
        if kind != our_kind:
            found.append(f"{name}({parameter}): kind {kind} -> {our_kind}")
        if not _same_default(default, our_default):
            found.append(f"{name}({parameter}): default {default} -> {our_default}")
    for parameter, (_, kind, default) in right.items():
        if parameter not in left:
            found.append(f"{name}({parameter}): added, {kind} = {default}")
    shared = [[p for p in side if p in other] for side, other in ((left, right), (right, left))]
    if shared[0] != shared[1]:
        found.append(f"{name}: order {', '.join(shared[0])} -> {', '.join(shared[1])}")
    if theirs["returns"] is not None and theirs["returns"] != our["returns"]:
        found.append(f"{name}: returns {theirs['returns']} -> {our['returns']}")
    return found


def _compare(name: str, theirs: dict[str, Any], our: dict[str, Any]) -> list[str]:
    if theirs["kind"] != our["kind"]:
        return [f"{name}: {theirs['kind']} -> {our['kind']}"]
    if theirs["kind"] == "function":
        return _compare_functions(name, theirs, our)
    found = []
    if theirs["kind"] == "class":
        if theirs["fields"] != our["fields"]:
            found.append(f"{name}: fields {', '.join(theirs['fields'])} -> {', '.join(our['fields'])}")
        for method, record in theirs["methods"].items():
            if method in our["methods"]:
                found += _compare_functions(f"{name}.{method}", record, our["methods"][method])
            else:
                found.append(f"{name}.{method}: missing")
    return found


def differences(theirs: dict[str, Any], our: dict[str, Any]) -> list[str]:
    """One line for each difference between two {module: {name: record}}."""
    found = []
    for module in sorted({*theirs, *our}):
        if module not in our or module not in theirs:
            found.append(f"{module}: {'missing' if module not in our else 'added'} module")
            continue
        for name in sorted({*theirs[module], *our[module]}):
            full = f"{module}.{name}" if module else name
            if name not in our[module]:
                found.append(f"{full}: missing")
            elif name not in theirs[module]:
                found.append(f"{full}: added")
            else:
                found += _compare(full, theirs[module][name], our[module][name])
    return found


def explained(found: list[str], meant: dict[str, str]) -> tuple[list[str], list[str]]:
    """Differences that nothing explains, and explanations of nothing."""
    patterns = {p: re.compile(re.escape(p).replace(r"\*", ".*")) for p in meant}
    unexplained = [line for line in found if not any(p.fullmatch(line) for p in patterns.values())]
    stale = [text for text, p in patterns.items() if not any(p.fullmatch(line) for line in found)]
    return unexplained, stale


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--make", metavar="SDIST", type=Path, help="write surface.json from a source distribution"
    )
    options = parser.parse_args()
    if options.make:
        FACTS.write_text(json.dumps(make(options.make), separators=(",", ":")).replace('},"', '},\n"') + "\n")
    theirs = json.loads(FACTS.read_text())["modules"]
    found = differences(theirs, ours(theirs))
    unexplained, stale = explained(found, MEANT)
    records = [r for names in theirs.values() for r in names.values()]
    functions = [f for r in records for f in (r, *r.get("methods", {}).values()) if f["kind"] == "function"]
    print("\n".join(found))
    for line in unexplained:
        print(f"UNEXPLAINED {line}")
    for line in stale:
        print(f"EXPLAINS NOTHING {line}")
    print(
        f"{len(theirs)} modules, {len(records)} names, {len(functions)} functions and methods, "
        f"{sum(len(f['parameters']) for f in functions)} parameters: {len(found)} differences, "
        f"{len(unexplained)} unexplained, {len(stale)} explanations of nothing"
    )
    return 1 if unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())
