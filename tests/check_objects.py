"""Checks compiled code.

    check_objects.py spills REGEX OBJECT...
        Hot loops do not spill: in an innermost loop of a function matching REGEX that
        multiplies in ymm, zmm or tile registers, at most one instruction for every 16
        multiplications moves a ymm or zmm register to or from the stack.
    check_objects.py mix PERCENT REGEX OBJECT...
        aarch64: in the innermost loop with the most multiplications of each function matching
        REGEX, they are at least PERCENT of all vector instructions, loads and stores of vectors
        included, and none of these is on the stack.
    check_objects.py baseline OBJECT...
        No instruction of a level outside of files named after it or a higher one; the lowest
        levels' are those of AVX, or of ARMv8.1, and later.
    check_objects.py symbols LIBRARY HEADER
        A shared library exports what the header declares with LIK_API, and no more.
    check_objects.py needs LIBRARY
        A shared library needs libc, libm and threads alone.
    check_objects.py sass LIBRARY
        In the CUDA machine code, every kernel of the Hopper loop multiplies with HGMMA and
        never touches local memory; no other kernel does in an innermost loop. Needs cuobjdump.

Needs objdump, or what $OBJDUMP names, and nm. Returns 1 if something is wrong, and if there
was nothing to check.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# What each level adds, in order: an instruction with its operands is of the last that matches.
X86_LEVELS = {
    "generic": re.compile(r""),
    "avx2": re.compile(r"v[a-z]"),
    "avxvnni": re.compile(r"\{vex\} vpdp(busd|wssd)s? "),
    "avx512": re.compile(r"(v|k)[a-z].*(%zmm|%k[0-7]|%[xy]mm(1[6-9]|2\d|3[01]))"),
    "avx512vnni": re.compile(r"vpdp(busd|wssd)s? "),
    "avx512bf16": re.compile(r"(vdpbf16ps|vcvtne2?ps2?bf16) "),
    "amx": re.compile(r"(tile|tdp|ldtilecfg|sttilecfg)"),
}
ARM_LEVELS = {
    "generic": re.compile(r""),
    "neon": re.compile(r"no instruction"),  # aarch64 has it
    # and what is as new: atomics, half-precision arithmetic, SVE
    "neondot": re.compile(
        r"[su]dot |sqrdml|(cas|swp|ld(add|clr|eor|set))|f\w+ .*v\d+\.[48]h.*\.[48]h|.*\bz\d+\."
    ),
    "neoni8mm": re.compile(r"([su]|us)mmla |(us|su)dot "),
    "neonbf16": re.compile(r"bf(mmla|dot|cvt\w*|mlal\w) "),
}
LEVELS = X86_LEVELS | ARM_LEVELS
LEVEL_OBJECT = re.compile(rf"_({'|'.join(LEVELS)})\.c")
FUNCTION = re.compile(r"^[0-9a-f]+ <([^>]+)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
MULTIPLIES = re.compile(r"^(vfn?m(add|sub)\d+ps|vpmaddwd|vpmaddubsw|vdpbf16ps|vpdp(busd|wssd)|tdp\w+)$")
VECTOR = re.compile(r"%[yzt]mm")
ARM_MULTIPLIES = re.compile(r"^(fmla|sdot|smmla|bfmmla|[su]ml[as]l2?|[su]mull2?)$")
ARM_VECTOR = re.compile(r"\b[qdv]\d+\b")
MULTIPLIES_PER_SPILL = 16
ON_STACK = re.compile(r"\(%rsp|\(%esp")


def disassemble(path: str) -> dict[str, list[tuple[int, str, str]]]:
    """Functions of an object file: name -> [(address, mnemonic, operands)]."""
    command = [os.environ.get("OBJDUMP", "objdump"), "-d", "--no-show-raw-insn", path]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    functions, current = {}, []
    for line in text.splitlines():
        if match := FUNCTION.match(line):
            current = functions.setdefault(match.group(1), [])
        elif match := INSTRUCTION.match(line):
            current.append((int(match.group(1), 16), match.group(2), match.group(3)))
    return functions


def innermost(loops: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges that hold no smaller one."""
    loops = set(loops)
    return sorted(a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops))


def innermost_loops(code: list[tuple[int, str, str]]) -> list[tuple[int, int]]:
    """Address ranges closed by a conditional backward jump that hold no smaller such range.

    Unconditional ones are skipped: they lead back from code that the compiler moved out of the
    way.
    """
    loops = set()
    for address, mnemonic, operands in code:
        target = re.search(r"\b([0-9a-f]+) <", operands)
        if (
            re.match(r"j(?!mp)|b\.|cbn?z|tbn?z", mnemonic)
            and target
            and code[0][0] <= int(target.group(1), 16) <= address
        ):
            loops.add((int(target.group(1), 16), address))
    return innermost(loops)


def check_spills(pattern: str, objects: list[str]) -> int:
    wrong = hot = 0
    for path in objects:
        for name, code in disassemble(path).items():
            if not re.search(pattern, name):
                continue
            for first, last in innermost_loops(code):
                body = [i for i in code if first <= i[0] <= last]
                multiplies = sum(bool(MULTIPLIES.match(i[1]) and VECTOR.search(i[2])) for i in body)
                spills = [i for i in body if VECTOR.search(i[2]) and ON_STACK.search(i[2])]
                hot += multiplies > 0
                if not multiplies or len(spills) * MULTIPLIES_PER_SPILL <= multiplies:
                    continue
                wrong += 1
                where = f"{Path(path).name}: {name}+{first - code[0][0]:#x}"
                print(f"{where}: {len(spills)} spills, {multiplies} multiplications:")
                for address, mnemonic, operands in spills:
                    print(f"    +{address - code[0][0]:#x}: {mnemonic} {operands}")
    print(f"check_objects: {hot} hot loops, {wrong} of them spill")
    return 1 if wrong or hot == 0 else 0


def check_mix(percent: int, pattern: str, objects: list[str]) -> int:
    wrong = functions = 0
    for path in objects:
        for name, code in disassemble(path).items():
            if not re.search(pattern, name):
                continue
            loops = [[i for i in code if a <= i[0] <= b] for a, b in innermost_loops(code)]
            counts = [sum(bool(ARM_MULTIPLIES.match(i[1])) for i in body) for body in loops]
            most = max(counts, default=0)
            functions += 1
            for body, count in zip(loops, counts, strict=True):
                if count < most:
                    continue
                vector = [i for i in body if ARM_VECTOR.search(i[2])]
                spills = sum("[sp" in i[2] for i in vector)
                share = 100 * count / max(len(vector), 1)
                if share < percent or spills:
                    wrong += 1
                print(f"{name}: {count} of {len(vector)} vector instructions, {share:.1f}%, {spills} spills")
    print(f"check_objects: {functions} functions, {wrong} loops below {percent}% or with spills")
    return 1 if wrong or functions == 0 else 0


def level_of(levels: dict[str, re.Pattern[str]], mnemonic: str, operands: str) -> str:
    """The lowest level that has the instruction."""
    text = f"{mnemonic} {operands}"
    if mnemonic in ("verr", "verw"):
        return "generic"
    return next(level for level in reversed(levels) if levels[level].match(text))


def check_baseline(objects: list[str]) -> int:
    levels = ARM_LEVELS if any("_neon.c" in path for path in objects) else X86_LEVELS
    wrong, order, counts = 0, list(levels), dict.fromkeys(levels, 0)
    for path in objects:
        match = LEVEL_OBJECT.search(path)
        own = match.group(1) if match else "generic"
        counts[own] += 1
        for name, code in disassemble(path).items():
            newer = next(
                (i for i in code if order.index(level_of(levels, i[1], i[2])) > order.index(own)),
                None,
            )
            if newer:
                wrong += 1
                print(f"{Path(path).name} is of {own}: {name}: {newer[1]} {newer[2]}")
    found = ", ".join(f"{count} of {level}" for level, count in counts.items())
    print(f"check_objects: {found}; {wrong} functions with newer instructions")
    return 1 if wrong or not all(counts.values()) else 0


def check_symbols(library: str, header: str) -> int:
    text = subprocess.run(
        ["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True
    ).stdout
    exported = {line.split()[-1].split("@")[0] for line in text.splitlines() if " A " not in line}
    source = re.sub(r"/\*.*?\*/", "", Path(header).read_text(encoding="utf-8"), flags=re.DOTALL)
    declared = set(re.findall(r"^LIK_API\b[^;(]*?\b(\w+)\(", source, flags=re.MULTILINE))
    for name in sorted(exported - declared):
        print(f"exported but not declared with LIK_API: {name}")
    for name in sorted(declared - exported):
        print(f"declared with LIK_API but not exported: {name}")
    for name in sorted(n for n in exported if not n.startswith("lik_")):
        print(f"not a lik_ name: {name}")
    print(f"check_objects: {len(exported)} exported symbols")
    return 1 if exported != declared or not exported or any(not n.startswith("lik_") for n in exported) else 0


def check_needs(library: str) -> int:
    text = subprocess.run(["objdump", "-p", library], check=True, capture_output=True, text=True).stdout
    needed = re.findall(r"NEEDED\s+(\S+)", text)
    wrong = [
        name
        for name in needed
        if not re.match(r"(libc|libm|libpthread|libdl|librt|ld-linux[\w-]*)\.so", name)
    ]
    print(f"check_objects: needs {', '.join(needed)}{'; not allowed: ' + ', '.join(wrong) if wrong else ''}")
    return 1 if wrong or not needed else 0


def local_memory(text: str, everywhere: bool) -> int:
    """Instructions of a kernel's listing that touch local memory: all, or those of its
    innermost loops.
    """
    code = [(int(a, 16), i) for a, i in re.findall(r"/\*([0-9a-f]{4,})\*/\s+([^;]*);", text)]
    jumps = [(a, re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", i)) for a, i in code]
    ends = {}  # of loops by their beginnings: several jumps may lead back to one
    for end, jump in jumps:
        if jump and (begin := int(jump.group(1), 16)) < end:
            ends[begin] = end
    inner = innermost(ends.items())
    touching = [a for a, i in code if re.search(r"\b(?:LDL|STL)\b", i)]
    return sum(everywhere or any(x[0] <= a <= x[1] for x in inner) for a in touching)


def check_sass(library: str) -> int:
    text = subprocess.run(["cuobjdump", "-sass", library], check=True, capture_output=True, text=True).stdout
    wrong = hopper = kernels = 0
    arch = ""
    for part in re.split(r"^(?=\s*(?:Function :|code for sm_))", text, flags=re.MULTILINE):
        if match := re.match(r"\s*code for (sm_\w+)", part):
            arch = match.group(1)
        match = re.match(r"\s*Function : (\S+)", part)
        if not match:
            continue
        kernels += 1
        name = f"{arch} {match.group(1)}"
        is_hopper = "score_sm90" in name and arch.startswith("sm_90")
        hopper += is_hopper
        if local := local_memory(part, is_hopper):
            wrong += 1
            print(f"{name}: {local} instructions on local memory")
        if is_hopper and "HGMMA" not in part:
            wrong += 1
            print(f"{name}: no HGMMA")
    print(f"check_objects: {kernels} kernels, {hopper} of the Hopper loop, {wrong} wrong")
    return 1 if wrong or not kernels or ("code for sm_90" in text and hopper == 0) else 0


def main() -> int:
    match sys.argv[1:]:
        case ["spills", pattern, *objects] if objects:
            return check_spills(pattern, objects)
        case ["mix", percent, pattern, *objects] if objects:
            return check_mix(int(percent), pattern, objects)
        case ["baseline", *objects] if objects:
            return check_baseline(objects)
        case ["symbols", library, header]:
            return check_symbols(library, header)
        case ["needs", library]:
            return check_needs(library)
        case ["sass", library]:
            return check_sass(library)
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main())
