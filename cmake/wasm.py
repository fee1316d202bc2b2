#!/usr/bin/env python3
"""The library as WebAssembly, its JavaScript and the live page, in build/wasm: `make wasm`.

    wasm.py [--check]        --check: lik_check for WASI as well, in build/wasm/cmake/tests

The compiler is that of the wheels, the PyPI package ziglang.

    lik.wasm          the library
    lik.js            the ES module that loads it from beside itself; package.json is for Node
    lik.d.ts          its types, for TypeScript and editors
    lik.classic.js    the same for <script>, the WebAssembly in it
    live/             the page; it works from where it lies, without a server
"""

import base64
import json
import os
import re
import shutil
import sys

import wheels

ROOT = wheels.ROOT
OUT = ROOT / "build/wasm"
DEFAULT = 'const defaultWasm = () => new URL("lik.wasm", import.meta.url);'
EMBEDDED = "const defaultWasm = () => Uint8Array.from(atob({}), (x) => x.charCodeAt(0));"
NAMES = ("load", "readNpy", "Lik", "Tokens", "LikError")


def compile_all(targets: list[str]) -> None:
    folder = OUT / "cmake"
    defines = {
        "CMAKE_TOOLCHAIN_FILE": ROOT / "cmake/zig.cmake",
        "LIK_ZIG": wheels.zig(wheels.tools()),
        "LIK_ZIG_TARGET": "wasm32-wasi",
        "LIK_WERROR": "ON",
        "LIK_CUDA": "OFF",
        "LIK_METAL": "OFF",
        "LIK_BUILD_CLI": "OFF",
        "BUILD_SHARED_LIBS": "OFF",
    }
    configure = ["cmake", "-S", ROOT, "-B", folder, *(f"-D{key}={value}" for key, value in defines.items())]
    wheels.run(*configure)
    wheels.run("cmake", "--build", folder, "--parallel", os.cpu_count() or 1, "--target", *targets)


def text(of: bytes) -> str:
    return json.dumps(base64.b64encode(of).decode())


def classic(module: str, wasm: bytes) -> str:
    """The module as a script that sets the global `lik`."""
    assert module.count(DEFAULT) == 1, f"lik.js must have the line {DEFAULT}"
    script = module.replace(DEFAULT, EMBEDDED.format(text(wasm))).replace("\nexport ", "\n")
    return f'"use strict";\nglobalThis.lik = (() => {{\n{script}\nreturn {{ {", ".join(NAMES)} }};\n}})();\n'


def demo() -> str:
    """The demo collection as a script that sets the global `demo`: the files of vectors as they
    are, of the texts what is shown.
    """
    folder = ROOT / "demo"
    parts = {}
    for name in ("documents", "queries"):
        lines = (folder / f"{name}.jsonl").read_text().splitlines()
        keep = ("id", "text", "tokens")
        parts[name] = {
            "vectors": base64.b64encode((folder / f"{name}.safetensors").read_bytes()).decode(),
            "texts": [{key: value for key, value in json.loads(x).items() if key in keep} for x in lines],
        }
    judged = [line.split() for line in (folder / "qrels.txt").read_text().splitlines()]
    parts["relevant"] = {query: document for query, _, document, grade in judged if int(grade) > 0}
    return f"globalThis.demo = {json.dumps(parts, ensure_ascii=False, separators=(',', ':'))};\n"


def main() -> int:
    compile_all(["lik_wasm", *(["lik_check"] if "--check" in sys.argv[1:] else [])])
    wasm, module = (OUT / "cmake/lik.wasm").read_bytes(), (ROOT / "web/lik.js").read_text()
    live = OUT / "live"
    shutil.rmtree(live, ignore_errors=True)
    shutil.copytree(ROOT / "web/live", live)
    (OUT / "lik.wasm").write_bytes(wasm)
    (OUT / "lik.js").write_text(module)
    for folder in (OUT, live):
        (folder / "lik.classic.js").write_text(classic(module, wasm))
    (live / "demo.js").write_text(demo())
    guide = (ROOT / "docs/web.md").read_text()
    (OUT / "README.md").write_text(re.sub(r"\[(\w+\.md)\]\(\1\)", r"docs/\1", guide))
    shutil.copy(ROOT / "LICENSE", OUT)
    shutil.copy(ROOT / "web/lik.d.ts", OUT)
    version = re.search(r"project\(lik VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
    package = {
        "name": "late-interaction-kernels",
        "version": version,
        "type": "module",
        "types": "./lik.d.ts",
        "exports": {
            ".": {"types": "./lik.d.ts", "default": "./lik.js"},
            "./lik.wasm": "./lik.wasm",
            "./package.json": "./package.json",
        },
        "license": "Apache-2.0",
        "files": ["lik.js", "lik.d.ts", "lik.wasm"],
    }
    (OUT / "package.json").write_text(json.dumps(package, indent=4) + "\n")
    for path in (OUT / "lik.wasm", OUT / "lik.js", OUT / "lik.classic.js", live / "demo.js"):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
