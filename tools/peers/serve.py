"""Tokens per second of `codelsi serve` and of llama.cpp's `llama-server` under concurrent clients, in turn.

    python3 tools/peers/serve.py --codelsi target/release/codelsi --model DIR --llama-server PATH --gguf FILE
        [--clients 1 4 16] [--rounds 9] [--prompt 128] [--tokens 64] [--requests 2] [--out FILE]

Both serve the same values. In each round every server is started, gets a request to warm up, then `--requests` requests from
each of so many clients at once, prompts of random token ids that no request shares; the order of the servers turns from round
to round. Printed are medians of generated tokens per second, of the time to the first token, and the geometric mean of the
paired ratios ours / peer with Student's 95 % interval: above 1, ours is faster.
"""

import argparse
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from compare import processor, ratio


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server process, up as long as it is measured."""

    def __init__(self, name, command):
        self.name, self.command = name, command

    def __enter__(self):
        self.port = free_port()
        command = [*self.command, "--host", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(1200):
            if self.process.poll() is not None:
                sys.exit(f"serve.py: {self.name} ended with {self.process.returncode}: {' '.join(command)}")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.1)
        sys.exit(f"serve.py: {self.name} did not come up in two minutes")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def complete(self, prompt, tokens):
        """Seconds to the first token, and the number of generated tokens."""
        body = {"model": "any", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True,
                "stream_options": {"include_usage": True}, "ignore_eos": True}
        if self.name == "codelsi":
            body["model"] = self.model()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        start, first, made = time.monotonic(), None, 0
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            sys.exit(f"serve.py: {self.name} says {response.status}: {response.read()[:300]}")
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            first = first or time.monotonic() - start
            usage = json.loads(line[6:]).get("usage")
            made = usage["completion_tokens"] if usage else made
        return first, made

    def model(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/v1/models")
        return json.load(connection.getresponse())["data"][0]["id"]


def measure(server, clients, args, rng):
    """Tokens per second of all clients, and the median seconds to a first token."""
    with server:
        prompt = lambda: [rng.randrange(10, args.vocabulary) for _ in range(args.prompt)]
        server.complete(prompt(), args.tokens)
        work = [[prompt() for _ in range(args.requests)] for _ in range(clients)]
        done = []

        def client(prompts):
            for ids in prompts:
                done.append(server.complete(ids, args.tokens))

        threads = [threading.Thread(target=client, args=(prompts,)) for prompts in work]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - start
        if len(done) != clients * args.requests:
            sys.exit(f"serve.py: {server.name} answered {len(done)} of {clients * args.requests} requests")
        return sum(made for _, made in done) / seconds, statistics.median(first for first, _ in done)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("codelsi", "model", "llama-server", "gguf"):
        parser.add_argument(f"--{flag}", required=True)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    for flag, default in (("rounds", 9), ("prompt", 128), ("tokens", 64), ("requests", 2)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.vocabulary = json.loads((Path(args.model) / "config.json").read_text())["vocab_size"]
    slots = max(args.clients)
    context = slots * (args.prompt + args.tokens + 16)
    threads = str(os.cpu_count())
    ours = Server("codelsi", [args.codelsi, "serve", "--model", args.model, "--device", "cpu", "--threads", threads])
    peer = Server("llama-server", [args.llama_server, "-m", args.gguf, "--parallel", str(slots), "-c", str(context),
                                   "-t", threads])
    rates, firsts, rng = {}, {}, random.Random(1)
    for turn in range(args.rounds):
        for clients in args.clients:
            for server in (ours, peer) if turn % 2 else (peer, ours):
                rate, first = measure(server, clients, args, rng)
                rates.setdefault((clients, server.name), []).append(rate)
                firsts.setdefault((clients, server.name), []).append(first)
        print(f"round {turn + 1} of {args.rounds}", file=sys.stderr)
    rows = []
    for clients in args.clients:
        mean, low, high = ratio(rates[clients, ours.name], rates[clients, peer.name])
        for server in (ours, peer):
            key = clients, server.name
            row = {"clients": clients, "program": server.name, "runs": rates[key], "first_token_s": firsts[key]}
            line = f"{clients:>3} clients  {server.name:<14}{statistics.median(rates[key]):>9.1f} tokens/s"
            line += f"{statistics.median(firsts[key]):>8.2f} s to the first"
            if server is peer:
                row["ours_over_it"] = [mean, low, high]
                line += f"   ours / it {mean:.2f} [{low:.2f}, {high:.2f}]"
            print(line)
            rows.append(row)
    if args.out:
        about = {"date": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()), "processor": processor(), "threads": os.cpu_count(),
                 "model": Path(args.model).name, "prompt": args.prompt, "tokens": args.tokens, "rounds": args.rounds}
        args.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
