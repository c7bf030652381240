#!/usr/bin/env python3
"""Packs the built program into a Python wheel.

    packaging/make_wheel.py BUILD/halo [--out dist]

The wheel `halo-hypenet` holds the program, its manual page, its completions, and those of the
distribution's libraries that it is linked to. LibTorch, the CUDA runtime and Arrow it does not hold:
it depends on the wheels `torch` and `pyarrow` in the versions of tools/bootstrap, beside which pip
installs it (the program finds them by its rpath, relative to site-packages).

Its platform is manylinux_X_Y with the X.Y of this machine's glibc: it runs where glibc and libstdc++
are as new as here.
"""

import argparse
import base64
import hashlib
import pathlib
import platform
import re
import shutil
import subprocess
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Beside site-packages/halo_hypenet/bin: our own lib, then the wheels.
RPATH = ":".join(f"$ORIGIN/../{folder}" for folder in
                 ("lib", "../torch/lib", "../nvidia/cu13/lib", "../pyarrow"))
# Part of every Linux that a manylinux wheel may count on.
SYSTEM = re.compile(r"(ld-linux-.*|linux-vdso|lib(c|m|dl|rt|util|pthread|gcc_s|stdc\+\+|gomp))\.so.*")
INIT = '''"""halo: turns a pretrained Transformer into a HypeNet. The program is bin/halo."""

import os
import pathlib
import sys


def main():
    here = pathlib.Path(__file__).resolve().parent
    for wheel, library in (("torch", "lib/libtorch_cpu.so"), ("pyarrow", "libarrow.so.*")):
        if not list((here.parent / wheel).glob(library)):
            sys.exit(f"halo: the wheel {wheel} is not in {here.parent}, beside halo-hypenet; "
                     "install both into the same environment")
    program = str(here / "bin" / "halo")
    os.execv(program, [program] + sys.argv[1:])
'''


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def pinned(wheel):
    return re.search(rf"^  {wheel}==(\S+)", (ROOT / "tools/bootstrap").read_text(), re.M).group(1)


def project_version():
    return re.search(r"project\(halo VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text()).group(1)


def copy_stripped(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    run("strip", "--strip-debug", "-o", target, source)


def copy_program(program, package):
    """The program, and the distribution's libraries with their licences."""
    target = package / "bin/halo"
    copy_stripped(program, target)
    with tempfile.NamedTemporaryFile("w", suffix=".cmake") as script:
        script.write(f'file(RPATH_SET FILE "{target}" NEW_RPATH "{RPATH}")\n'.replace("$O", "\\$O"))
        script.flush()
        run("cmake", "-P", script.name)
    deps = (ROOT / ".deps").resolve()
    for line in run("ldd", program).splitlines():
        found = re.match(r"\s*(\S+) => (/\S+)", line)
        if "not found" in line:
            raise SystemExit(f"make_wheel: {line.strip()}")
        if not found or SYSTEM.fullmatch(found[1]):
            continue
        library = pathlib.Path(found[2]).resolve()
        if deps in library.parents:
            continue
        copy_stripped(library, package / "lib" / found[1])
        owner = run("dpkg-query", "-S", f"*/{library.name}").split(":")[0]
        shutil.copy(f"/usr/share/doc/{owner}/copyright", package / "lib" / f"{owner}.copyright")
    for text in deps.glob("src/xgrammar-*/[LN]*"):  # LICENSE, NOTICE; it is linked into the program
        shutil.copy(text, package / "lib" / f"xgrammar.{text.name}")


def copy_documentation(program, data):
    for path, words in (("man/man1/halo.1", ["man"]),
                        ("bash-completion/completions/halo", ["completion", "bash"]),
                        ("zsh/site-functions/_halo", ["completion", "zsh"]),
                        ("fish/vendor_completions.d/halo.fish", ["completion", "fish"])):
        target = data / "data/share" / path
        target.parent.mkdir(parents=True)
        target.write_text(run(program, *words))


def write_metadata(info, version, tag):
    info.mkdir()
    (info / "METADATA").write_text(f"""Metadata-Version: 2.1
Name: halo-hypenet
Version: {version}
Summary: Turns a pretrained Transformer into a hybrid with Lightning attention
License: Apache-2.0
Requires-Python: >=3.10
Requires-Dist: torch=={pinned("torch")}
Requires-Dist: pyarrow=={pinned("pyarrow")}
Description-Content-Type: text/markdown

{(ROOT / "README.md").read_text()}""")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nGenerator: halo\nRoot-Is-Purelib: false\n"
                                f"Tag: {tag}\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nhalo = halo_hypenet:main\n")
    shutil.copy(ROOT / "LICENSE", info)


def write_wheel(stage, info, path):
    """Zips `stage`, its metadata last, with a RECORD of every file's hash and size."""
    record = info / "RECORD"
    files = sorted((p for p in stage.rglob("*") if p.is_file()), key=lambda p: (info in p.parents, p))
    lines = []
    for file in files:
        digest = base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).rstrip(b"=")
        lines.append(f"{file.relative_to(stage)},sha256={digest.decode()},{file.stat().st_size}\n")
    record.write_text("".join(lines) + f"{record.relative_to(stage)},,\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files + [record]:
            archive.write(file, file.relative_to(stage))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "dist")
    args = parser.parse_args()
    program = args.program.resolve()
    version = project_version()
    glibc = platform.libc_ver()[1].replace(".", "_")
    tag = f"py3-none-manylinux_{glibc}_{platform.machine()}"
    name = f"halo_hypenet-{version}"
    with tempfile.TemporaryDirectory() as folder:
        stage = pathlib.Path(folder)
        package = stage / "halo_hypenet"
        copy_program(program, package)
        (package / "__init__.py").write_text(INIT)
        (package / "__main__.py").write_text("from halo_hypenet import main\n\nmain()\n")
        copy_documentation(program, stage / f"{name}.data")
        info = stage / f"{name}.dist-info"
        write_metadata(info, version, tag)
        wheel = args.out / f"{name}-{tag}.whl"
        write_wheel(stage, info, wheel)
    print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
