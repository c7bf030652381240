"""A running `halo serve` for the scripts beside this one and for tests/clients."""
import re, subprocess, sys, threading, urllib.request

# A line of /metrics; the model's name, which all have, is left out.
SAMPLE = re.compile(r'^(halo_\w+)\{model_name="(?:[^"\\]|\\.)*",?(.*)\} (\S+)$', re.M)


def start(halo, model, options):
    """The process and its port, once it listens; what it says from then on is read and dropped."""
    server = subprocess.Popen([halo, "serve", model, "--port", "0", *options], stderr=subprocess.PIPE,
                              text=True)
    for line in server.stderr:
        if found := re.search(r"at http://127\.0\.0\.1:(\d+)", line):
            threading.Thread(target=server.stderr.read, daemon=True).start()
            return server, int(found.group(1))
    sys.exit("the server ended before it listened")


def metrics(port):
    """The figures of /metrics: {'halo_connections': 1.0, 'halo_requests_total{route="/",status="200"}': 2.0, ...}"""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return {f"{name}{{{labels}}}" if labels else name: float(value)
            for name, labels, value in SAMPLE.findall(text)}
