#!/usr/bin/env python3
"""What large requests took of the memory goes back to the machine once they are answered, while the server goes on.

    tests/clients/memory.py build/halo
"""
import pathlib
import sys
import tempfile
import threading
import time

import reuse
from soak import resident  # beside serving.py, where reuse.py looks

MOST = 12 << 20  # bytes that may stay


def allocated(server):
    kinds = resident(server.process.pid)
    return kinds["heap"] + kinds["arenas"]


def ask(server):
    """A body of many small pieces, which the answer has no use for."""
    server.post("/v1/completions", prompt="It was late and cold", max_tokens=2, user="u" * 100,
                ignored=[f"a text that is no short one {i}" for i in range(200_000)])


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        reuse.write_model(folder / "model")
        (folder / "slots").mkdir()
        server = reuse.Server(sys.argv[1], folder)
        try:
            server.post("/v1/completions", prompt="It was", max_tokens=2)
            before = allocated(server)
            askers = [threading.Thread(target=ask, args=(server,)) for _ in range(4)]
            for asker in askers:
                asker.start()
            most = before
            while any(asker.is_alive() for asker in askers):
                most = max(most, allocated(server))
                time.sleep(0.02)
            assert most > before + 2 * MOST, (before, most)
            for _ in range(60):
                time.sleep(0.5)
                after = allocated(server)
                if after < before + MOST:
                    break
            print(f"memory: {before >> 20} MiB before large requests, {most >> 20} meanwhile, {after >> 20} after")
            return 0 if after < before + MOST else 1
        finally:
            server.process.terminate()
            server.process.wait(60)


if __name__ == "__main__":
    sys.exit(main())
