#!/usr/bin/env python3
"""Checks the layout. CMakeLists.txt says which parts there are and what each may use (DEPS); a part
includes only itself and what it reaches through DEPS, Torch stays out of the parts that are declared
without TORCH, and files stay short. Prints every violation; exit 1 if there is one.
"""

import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAX_LINES = 600
MEDIAN_LINES = range(50, 151)
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
TORCH = re.compile(r"(ATen|torch|c10)/")


def read_parts():
    """{part: (parts it may include, has Torch)} by the halo_part lines, in their order."""
    parts = {}
    text = re.sub(r"#.*", "", (ROOT / "CMakeLists.txt").read_text())
    for call in re.finditer(r"halo_part\(([^)]*)\)", text):
        words = call[1].split()
        uses = set()
        if "DEPS" in words:
            for word in words[words.index("DEPS") + 1:]:
                if word == "LIBS":
                    break
                if word not in parts:
                    sys.exit(f"CMakeLists.txt: {words[0]} uses {word}, which is not above it")
                uses |= {word} | parts[word][0]
        parts[words[0]] = (uses, "TORCH" in words)
    programs = (ROOT / "halo/cli/CMakeLists.txt").read_text()
    linked = re.search(r"target_link_libraries\(halo PRIVATE([^)]*)\)", programs)[1].split()
    uses = {word.removeprefix("halo_") for word in linked}
    parts["cli"] = (uses.union(*(parts[part][0] for part in uses)), True)
    return parts


def check_includes(path, part, parts):
    uses, has_torch = parts[part]
    text = path.read_text()
    for match in INCLUDE.finditer(text):
        quote, name = match[1], match[2]
        line = f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start() + 1) + 1}"
        if name.startswith("halo/"):
            other = name.split("/")[1]
            if other not in parts:
                yield f"{line}: {name} is in no part"
            elif other != part and other not in uses:
                yield f"{line}: {part} may not include {other} (DEPS in CMakeLists.txt)"
        elif name == "torch/torch.h":
            yield f"{line}: torch/torch.h costs half a minute a file; include what is used"
        elif TORCH.match(name):
            if not has_torch or path.suffix in (".cu", ".cuh"):
                yield f"{line}: no Torch here"
        elif quote == '"' and ("/" not in name or name.startswith(".")):
            yield f"{line}: name the header by its path from the root, so that its part can be told"


def main():
    parts = read_parts()
    violations = []
    for folder in sorted((ROOT / "halo").iterdir()):
        if folder.is_dir() and folder.name not in parts:
            violations.append(f"halo/{folder.name}: no part of CMakeLists.txt")
    lengths = {}
    for path in sorted([*(ROOT / "halo").rglob("*"), *(ROOT / "tests").rglob("*")]):
        if path.suffix not in (".h", ".cc", ".cu", ".cuh", ".py", ".sh") or "corpus" in path.parts:
            continue
        lengths[path] = len(path.read_text().splitlines())
        part = path.relative_to(ROOT / "halo").parts[0] if path.is_relative_to(ROOT / "halo") else ""
        if part in parts and path.suffix not in (".py", ".sh"):
            violations += check_includes(path, part, parts)
    for path, lines in lengths.items():
        if lines > MAX_LINES:
            violations.append(f"{path.relative_to(ROOT)}: {lines} lines, more than {MAX_LINES}")
    sources = [lines for path, lines in lengths.items()
               if path.suffix == ".cc" and not path.name.endswith("_stub.cc")]
    median = statistics.median(sources)
    if round(median) not in MEDIAN_LINES:
        violations.append(f"the median source has {median} lines, not 50 to 150")
    print(*violations, sep="\n", end="\n" if violations else "")
    longest = max(lengths, key=lengths.get)
    print(f"layers: {len(violations)} violations; {len(parts)} parts, {len(lengths)} files, median "
          f"{median:.0f} lines, longest {lengths[longest]} ({longest.relative_to(ROOT)})")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
