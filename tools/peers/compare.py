"""Tokens per second of `codelsi` and of what else runs the same model folder on this CPU, in turn.

    python3 tools/peers/compare.py --codelsi target/release/codelsi --model DIR
        [--old OTHER/codelsi] [--torch] [--llama-bench PATH --gguf FILE]
        [--rounds 9] [--prefill 512] [--decode 64] [--train 512] [--dropout 0] [--busy N] [--out FILE]

Each round runs every program once on every workload, in an order that turns from round to round, so that a machine whose
speed wanders slows all of them; a run is timed after a warm-up run. Printed are the medians, and for each peer the
geometric mean of the paired ratios ours / peer with Student's 95 % interval: above 1, ours is faster. `--out` writes all
runs as JSON. llama.cpp has no training, and another `codelsi` (`--old`) is a peer like any other. `llama-bench` is built from
the sources in the sdist of the package llama-cpp-python; `codelsi export --gguf FILE --type bf16` writes the file.

`--busy N` keeps that many other processors computing meanwhile. A machine without AVX-512 is CODELSI_SIMD=avx2,
ONEDNN_MAX_CPU_ISA=AVX2, ATEN_CPU_CAPABILITY=avx2 and a llama.cpp that is built with GGML_NATIVE=OFF.

Peak memory is the ledger's of `codelsi`, and the resident set of the others, in which llama.cpp's has the mapped file.
"""

import argparse
import contextlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

T_975 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131]


def student(degrees):
    return T_975[degrees - 1] if degrees <= len(T_975) else 1.96 + 2.5 / degrees


class Codelsi:
    """A binary of ours; every run is a process."""

    def __init__(self, binary, model, args, name):
        self.name, self.binary, self.model, self.args = name, binary, model, args
        flags = subprocess.run([binary, "bench", "--help"], capture_output=True, text=True, check=True).stdout
        wanted = {"--dropout": args.dropout, "--threads": args.threads}
        built_in = {"--dropout": 0.05, "--threads": os.cpu_count()}  # of a binary without the flag
        for flag in wanted:
            if flag not in flags and wanted[flag] != built_in[flag]:
                sys.exit(f"compare.py: {name} has no {flag}: it runs with {built_in[flag]}, not {wanted[flag]}")
        self.flags = [word for flag in wanted if flag in flags for word in (flag, str(wanted[flag]))]
        self.memory = {}

    def rate(self, work, tokens):
        sizes = {"prefill": 0, "decode": 0, "train": 0, work: tokens}
        command = [self.binary, "bench", "--model", self.model, "--device", "cpu", "--repeat", "1", "--json", *self.flags]
        for name, n in sizes.items():
            command += [f"--{name}", str(n)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        result = json.loads(out.splitlines()[-1])
        self.memory[work] = result["peak_bytes"]
        return result[f"{work}_tokens_per_s"]


class Torch:
    """PyTorch in a process that stays."""

    def __init__(self, model, args):
        script = str(Path(__file__).with_name("torch_model.py"))
        command = [sys.executable, script, model, "--dropout", str(args.dropout), "--threads", str(args.threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.name = self.process.stdout.readline().strip()
        if not self.name:
            sys.exit("compare.py: PyTorch did not start")
        self.memory = {}

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def rate(self, work, tokens):
        self.ask(f"{work} {tokens}")
        seconds = self.ask(f"{work} {tokens}")
        self.memory[work] = self.ask("memory")
        return tokens / seconds


class LlamaCpp:
    """llama-bench on a GGUF file."""

    def __init__(self, binary, gguf, args):
        self.name, self.binary, self.gguf, self.args, self.memory = "llama.cpp", binary, gguf, args, {}

    def rate(self, work, tokens):
        if work == "train":
            return None
        sizes = ["-p", str(tokens), "-n", "0"] if work == "prefill" else ["-p", "0", "-n", str(tokens)]
        command = [self.binary, "-m", self.gguf, "-t", str(self.args.threads), "-r", "1", "-o", "json", *sizes]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"compare.py: {' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
        self.memory[work] = usage.ru_maxrss * 1024
        return json.loads(out)[0]["avg_ts"]


@contextlib.contextmanager
def busy(processors):
    """Processes that compute, each on a processor of its own, the last ones."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(processors)]
    try:
        for i, process in enumerate(processes):
            os.sched_setaffinity(process.pid, {os.cpu_count() - 1 - i})
        yield
    finally:
        for process in processes:
            process.kill()


def ratio(ours, theirs):
    """The geometric mean of ours / theirs over rounds, with its interval."""
    logs = [math.log(a / b) for a, b in zip(ours, theirs)]
    mean = statistics.fmean(logs)
    half = student(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def measure(programs, works, rounds):
    """Tokens per second of each run, by workload and program."""
    rates = {}
    for turn in range(rounds):
        for work, tokens in works:
            for i in range(len(programs)):
                program = programs[(turn + i) % len(programs)]
                rate = program.rate(work, tokens)
                if rate is not None:
                    rates.setdefault((work, program.name), []).append(rate)
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codelsi", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--old", help="another codelsi, as a peer")
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--llama-bench")
    parser.add_argument("--gguf")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    for work, tokens in (("prefill", 512), ("decode", 64), ("train", 512)):
        parser.add_argument(f"--{work}", type=int, default=tokens, help="tokens; 0 leaves it out")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--busy", type=int, default=0, help="processors that compute something else")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.rounds < 2 or bool(args.llama_bench) != bool(args.gguf):
        parser.error("at least two rounds; --llama-bench and --gguf go together")
    if not 0 <= args.busy <= os.cpu_count():
        parser.error(f"--busy {args.busy}: there are {os.cpu_count()} processors")

    programs = [Codelsi(args.codelsi, args.model, args, "codelsi")]
    if args.old:
        programs.append(Codelsi(args.old, args.model, args, "old codelsi"))
    if args.torch:
        programs.append(Torch(args.model, args))
    if args.llama_bench:
        programs.append(LlamaCpp(args.llama_bench, args.gguf, args))
    works = [(work, getattr(args, work)) for work in ("prefill", "decode", "train") if getattr(args, work)]

    with busy(args.busy):
        rates = measure(programs, works, args.rounds)

    rows = []
    for work, tokens in works:
        ours = rates[work, "codelsi"]
        for program in programs:
            theirs = rates.get((work, program.name))
            if theirs is None:
                continue
            row = {"work": work, "tokens": tokens, "program": program.name, "median": statistics.median(theirs),
                   "runs": theirs, "peak_bytes": program.memory.get(work)}
            line = f"{work:<8}{program.name:<32}{row['median']:>10.1f} tokens/s{(row['peak_bytes'] or 0) / 2**30:>7.2f} GiB"
            if program is not programs[0]:
                row["ours_over_it"] = mean, low, high = ratio(ours, theirs)
                line += f"   ours / it {mean:.2f} [{low:.2f}, {high:.2f}]"
            print(line)
            rows.append(row)
    if args.out:
        about = {"date": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()), "machine": f"{platform.system()} {platform.machine()}",
                 "processor": processor(), "threads": args.threads, "model": Path(args.model).name,
                 "dropout": args.dropout, "busy": args.busy, "rounds": args.rounds,
                 "simd": os.environ.get("CODELSI_SIMD", "")}
        args.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    levels = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{names[0] if names else platform.processor()} ({', '.join(levels)})"


if __name__ == "__main__":
    main()
