#!/usr/bin/env python3
"""What a healthy client of `halo serve` notices of 500 slow ones, by slowhttptest (a package of Debian).

  python3 comparisons/slow_clients.py --halo build/halo --model runs/demo/model --rounds 4

slowhttptest keeps a core busy, whoever it is pointed at. So it runs at the lowest priority, and requests
are timed by turns while it holds its connections to the server and while it holds as many to a listener
that takes all and answers nothing, in each of its modes: headers and bodies that come a piece at a time,
answers that are hardly read. What is added is the median over pairs of turns that follow each other, each
the ratio of their medians: the pace of a machine that others use changes from minute to minute.
"""
import argparse, asyncio, http.client, json, multiprocessing, os, statistics, subprocess, time

import serving

MODES = {"header": (["-H"], "/v1/models"),
         "body": (["-B", "-s", "8192", "-t", "POST", "-f", "application/json"], "/tokenize"),
         "read": (["-X", "-n", "2", "-w", "512", "-y", "1024", "-z", "32", "-k", "3"], "/openapi.json")}
REQUESTS = {"tokenize": ("/tokenize", {"prompt": "the old dog sat by a small house"}),
            "answer": ("/v1/completions", {"prompt": "the old dog", "max_tokens": 16, "temperature": 0,
                                           "ignore_eos": True})}


def listen(port):
    async def take(reader, _):
        while await reader.read(4096):
            pass

    async def main():
        server = await asyncio.start_server(take, "127.0.0.1", 0, backlog=1024)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()
    asyncio.run(main())


def sample(port, seconds, path, body):
    client, times, end = http.client.HTTPConnection("127.0.0.1", port, timeout=60), [], time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.perf_counter()
        client.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = client.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        times.append(time.perf_counter() - begin)
        time.sleep(0.005)
    client.close()
    return times


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spread(times):
    ordered = sorted(times)
    return {f"p{share}_ms": round(1e3 * ordered[len(ordered) * share // 100], 3) for share in (50, 90, 99)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--halo", default="build/halo")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    known = multiprocessing.Queue()
    idle = multiprocessing.Process(target=listen, args=(known,), daemon=True)
    idle.start()
    targets = {"beside": known.get()}
    server, targets["attacked"] = serving.start(args.halo, args.model, ["--memory", "0.05", "--threads", "1"])
    port, result = targets["attacked"], {}
    for mode, (options, path) in MODES.items():
        times = {which: {name: [] for name in REQUESTS} for which in targets}  # a list for each turn
        connections, cores = [], []
        for turn in range(2 * args.rounds):
            which = ["beside", "attacked", "attacked", "beside"][turn % 4]
            attack = subprocess.Popen(
                ["nice", "-n", "19", "slowhttptest", "-c", "500", "-r", "500", "-i", "2", "-l", "60", "-p", "5", *options, "-u",
                 f"http://127.0.0.1:{targets[which]}{path}"], stdout=subprocess.DEVNULL)
            time.sleep(2)
            for name, request in REQUESTS.items():
                times[which][name].append(sample(port, 2, *request))
            if which == "attacked":
                connections.append(serving.metrics(port)["halo_connections"])
                before = cpu_seconds(server.pid)
                time.sleep(2)
                cores.append((cpu_seconds(server.pid) - before) / 2)
            attack.kill()
            attack.wait()
            time.sleep(1)
        result[mode] = {"connections": min(connections), "cores_of_the_server": statistics.mean(cores)}
        for name in REQUESTS:
            beside, attacked = times["beside"][name], times["attacked"][name]
            added = sorted(statistics.median(a) / statistics.median(b) - 1 for a, b in zip(attacked, beside))
            result[mode][name] = {"beside": spread(sum(beside, [])), "attacked": spread(sum(attacked, [])),
                                  "added_at_the_median": round(statistics.median(added), 3),
                                  "added_by_pair": [round(share, 3) for share in added]}
    server.terminate()
    result["exit"] = server.wait(60)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
