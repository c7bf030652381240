"""A running `halo serve` for the scripts beside this one."""
import re, subprocess, sys, threading


def start(halo, model, options):
    """The process and its port, once it listens; what it says from then on is read and dropped."""
    server = subprocess.Popen([halo, "serve", model, "--port", "0", *options], stderr=subprocess.PIPE,
                              text=True)
    for line in server.stderr:
        if found := re.search(r"at http://127\.0\.0\.1:(\d+)", line):
            threading.Thread(target=server.stderr.read, daemon=True).start()
            return server, int(found.group(1))
    sys.exit("the server ended before it listened")
