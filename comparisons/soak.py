#!/usr/bin/env python3
"""Hours of mixed requests to `halo serve`, and what becomes of its memory.

  python3 comparisons/soak.py --halo build/halo --model runs/demo/model --hours 2 --out soak.json
  python3 comparisons/soak.py --halo build/halo --model runs/demo/model --requests 20000 --clients 4

--rate requests a second, or of --clients at a time one after the other, drawn from a fixed seed:
prompts that share their beginnings and that do not, streams, several answers, JSON answers, wrong
requests, clients that go. The resident memory is read every ten seconds, by kind: malloc's heap and its
other arenas, what is mapped (pools of keys, values and states; large pieces; stacks), files. Its slope,
an hour and 10,000 requests, is that of a straight line through the last three quarters, by when the
prefixes that are kept have filled their memory (--memory, in GB).
"""
import argparse, json, random, re, socket, sys, threading, time

import serving

WORDS = "the old dog sat by a small house and saw how the rain came over hill and field".split()
KINDS = ["completion", "stream", "several", "json", "wrong", "shared", "gone", "responses"]


def text_of(source, words):
    return " ".join(source.choice(WORDS) for _ in range(words))


def request_of(source, kind):
    path, body = "/v1/completions", {"prompt": text_of(source, source.randint(1, 200)), "max_tokens": 24}
    if kind in ("stream", "gone"):
        body["stream"] = True
    elif kind == "several":
        body |= {"n": 3, "temperature": 0.9, "seed": source.randint(0, 9), "logprobs": 3}
    elif kind == "json":
        body |= {"response_format": {"type": "json_object"}, "max_tokens": 40}
    elif kind == "wrong":
        body["temperature"] = "warm"
    elif kind == "shared":
        body["prompt"] = text_of(random.Random(source.randint(0, 5)), 300) + " " + body["prompt"]
    elif kind == "responses":
        path, body = "/v1/responses", {"input": body["prompt"], "max_output_tokens": 24}
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(text)}\r\n"
    return head.encode() + b"Content-Type: application/json\r\n\r\n" + text


def ask(port, source, kind, counts):
    try:
        client = socket.create_connection(("127.0.0.1", port), timeout=120)
        client.sendall(request_of(source, kind))
        if kind == "gone":
            client.settimeout(source.random() * 0.2 + 1e-3)
            try:
                client.recv(64)
            except TimeoutError:
                pass
            client.close()
            status = "gone"
        else:
            answer = b""
            while piece := client.recv(1 << 16):
                answer += piece
            status = answer[9:12].decode()
    except OSError as error:
        status = type(error).__name__
    counts[f"{kind} {status}"] = counts.get(f"{kind} {status}", 0) + 1


def resident(pid):
    """Bytes of the process by kind of mapping."""
    kinds = dict.fromkeys(["heap", "arenas", "mapped", "files"], 0)
    kind = ""
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            if found := re.match(r"([0-9a-f]+)-[0-9a-f]+ \S+ \S+ \S+ (\d+) *(.*)", line):
                begin, file, name = int(found[1], 16), int(found[2]), found[3]
                # An arena is at a multiple of 64 MB, which other mappings hardly are.
                kind = ("heap" if name == "[heap]" else "files" if file
                        else "arenas" if begin % (64 << 20) == 0 else "mapped")
            elif line.startswith("Rss:"):
                kinds[kind] += int(line.split()[1]) * 1024
    return kinds


def slope(points):
    n = len(points)
    x, y = sum(p[0] for p in points) / n, sum(p[1] for p in points) / n
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--halo", default="build/halo")
    parser.add_argument("--model", required=True)
    parser.add_argument("--hours", type=float, default=2)
    parser.add_argument("--requests", type=int, help="end after so many")
    parser.add_argument("--rate", type=float, default=3)
    parser.add_argument("--clients", type=int, default=0, help="so many at a time, in place of --rate")
    parser.add_argument("--memory", type=float, default=0.05)
    parser.add_argument("--serve", default="", help="more options of `halo serve`")
    parser.add_argument("--out")
    args = parser.parse_args()
    server, port = serving.start(args.halo, args.model, ["--memory", str(args.memory), *args.serve.split()])
    begin, points, counts, number = time.monotonic(), [], {}, 0
    result = {}

    def report(end):
        hours = (time.monotonic() - begin) / 3600
        late = [p for p in points if p[0] > hours / 4]
        whole = lambda which: [(p[which], sum(p[2].values())) for p in late]
        result.update({"command": " ".join(sys.argv), "hours": hours, "requests": number,
                       "answers": dict(sorted(counts.items())),
                       "resident_bytes": [{"requests": p[1], **p[2]} for p in points],
                       "slope_bytes_an_hour": slope(whole(0)) if len(late) > 2 else None,
                       "slope_bytes_10000_requests": slope(whole(1)) * 1e4 if len(late) > 2 else None,
                       "ended": end})
        if args.out:
            with open(args.out, "w") as f:
                f.write(json.dumps(result, indent=1) + "\n")

    running = threading.Semaphore(args.clients or 1 << 20)

    def client(source):
        ask(port, source, source.choice(KINDS), counts)
        running.release()

    while (now := time.monotonic() - begin) < args.hours * 3600 and server.poll() is None:
        if args.requests and number == args.requests:
            break
        running.acquire()
        threading.Thread(target=client, args=(random.Random(number),), daemon=True).start()
        number += 1
        if now / 10 >= len(points):
            points.append((now / 3600, number, resident(server.pid)))
            if len(points) % 30 == 0:
                report("not yet")
        if not args.clients:
            time.sleep(max(0.0, number / args.rate - (time.monotonic() - begin)))
    time.sleep(5)
    points.append(((time.monotonic() - begin) / 3600, number, resident(server.pid)))
    result["metrics"] = {name: value for name, value in serving.metrics(port).items() if "_bucket{" not in name}
    server.terminate()
    report(server.wait(60))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
