#!/usr/bin/env python3
"""Four times as many requests as `halo serve` can answer, and what then becomes of those that it takes.

  python3 comparisons/overload.py --halo build/halo --model runs/demo/model --out overload.json

Peak: as many connections as run at a time, each with one request after the other. Overload: requests arrive at --times the
rate of that, on a connection each, whether others have been answered or not; --max-queued of them wait, the rest are
refused with 429. Goodput: tokens a second of answers that came whole. Turns of --seconds alternate, so that a change of
the machine's pace shows in both.
"""
import argparse, collections, http.client, json, statistics, sys, threading, time

import serving

TOKENS = 64


def ask(port, number, seen):
    """Counts the answer's status; the tokens of one that came whole, and the seconds that it took."""
    body = json.dumps({"prompt": f"Story {number} of the old man and", "max_tokens": TOKENS, "ignore_eos": True})
    began = time.monotonic()
    try:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        client.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = client.getresponse()
        text = answer.read()
        client.close()
        status = str(answer.status)
        tokens = json.loads(text)["usage"]["completion_tokens"] if answer.status == 200 else 0
        if answer.status == 200 and tokens != TOKENS:
            status = "cut off"
        if answer.status == 429 and not answer.headers["Retry-After"]:
            status = "429 without Retry-After"
    except (OSError, http.client.HTTPException) as error:
        status, tokens = type(error).__name__, 0
    seen.append((status, tokens, time.monotonic() - began, time.monotonic()))


def summary(seen, begin, end):
    answered = [row for row in seen if row[0] == "200"]
    return {"answers": dict(collections.Counter(row[0] for row in seen)),
            "tokens_per_second": sum(row[1] for row in answered if row[3] <= end) / (end - begin),
            "seconds_median": statistics.median(row[2] for row in answered)}


def peak(port, clients, seconds):
    """One request after the other on each connection."""
    seen, begin = [], time.monotonic()

    def work(first):
        number = first
        while time.monotonic() < begin + seconds:
            ask(port, number, seen)
            number += clients

    threads = [threading.Thread(target=work, args=[i]) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return summary(seen, begin, time.monotonic())


def overload(port, rate, seconds):
    """Requests at a fixed rate; those still under way at the end are waited for, and their tokens are not counted."""
    seen, threads, begin = [], [], time.monotonic()
    for number in range(int(rate * seconds)):
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        threads.append(threading.Thread(target=ask, args=[port, number, seen]))
        threads[-1].start()
    end = time.monotonic()
    for thread in threads:
        thread.join()
    return summary(seen, begin, end) | {"requests": len(threads), "rate": rate}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--halo", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--running", type=int, default=8, help="answers that grow at a time")
    parser.add_argument("--queued", type=int, default=16, help="answers that may wait")
    parser.add_argument("--times", type=float, default=4)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    server, port = serving.start(args.halo, args.model, ["--max-running", str(args.running), "--max-queued", str(args.queued),
                                                         "--memory", "0.2", "--threads", "1"])
    try:
        peak(port, args.running, 2)
        rounds = []
        for _ in range(args.rounds):
            best = peak(port, args.running, args.seconds)
            over = overload(port, args.times * best["tokens_per_second"] / TOKENS, args.seconds)
            rounds.append({"peak": best, "overload": over, "goodput": over["tokens_per_second"] / best["tokens_per_second"]})
            print(json.dumps(rounds[-1]), flush=True)
    finally:
        server.terminate()
        server.wait()
    report = {"what": "goodput of halo serve under overload, beside its peak", "times": args.times, "running": args.running,
              "queued": args.queued, "tokens": TOKENS, "rounds": rounds,
              "goodput_median": statistics.median(r["goodput"] for r in rounds)}
    with open(args.out, "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    lost = {status for r in rounds for part in ("peak", "overload") for status in r[part]["answers"]} - {"200", "429"}
    if lost:
        sys.exit(f"answers were lost: {lost}")


main()
