"""PyTorch on the shapes that `cargo bench -p codelsi-benches --bench ops` times, so that both can be laid side by side.

    python3 tools/peers/pytorch.py [--device auto|cuda|cpu] [--repeat 20] [--rows 4096] [NAME..]
    python3 tools/peers/pytorch.py --on-demand      # as the peer of `cargo bench -p codelsi-benches --bench peers`

Random bf16 data; on a card the L2 cache is overwritten before every timed run and times are those of CUDA events.
Without NAMEs, everything: gemm, rmsnorm, flash, xent, lora. The last line is one JSON object, {"op/case": {"median_s":
.., "tflop_per_s" or "gb_per_s": ..}}; figures count what an op must compute or move at the least, as our benches do.
On demand it times one run of each case that a line of stdin names, and answers with its seconds, or with `absent` and the
reason.
"""

import argparse
import json
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("pytorch.py: PyTorch is not installed in this Python: pip install torch, or run it where it is")

FLUSH = 256 << 20  # bytes that push everything else out of the L2 cache of any card

C, INNER, HEADS, D, V, R = 5120, 13824, 40, 128, 32016, 16  # Code Llama 13B and its LoRA


class Work:
    """A case: what its passes run, and the least that they compute (flops) or move (bytes).

    `passes` is {pass: (prepare, run, factor)}: `run` gets what `prepare` returns and is timed; its cost is `factor` times
    that of the case.
    """

    def __init__(self, passes, flops=0.0, moved=0.0):
        self.passes, self.flops, self.moved = passes, flops, moved


def both(forward, inputs, flops=0.0, moved=0.0, backward=2.0):
    """`forward`, which returns a tuple, without a tape; then its backward, at `backward` times the cost."""

    def without_tape(_):
        with torch.no_grad():
            forward()

    dy = [torch.randn_like(y) for y in forward()]

    def tape():
        for x in inputs:
            x.grad = None
        return forward()

    passes = {
        "Forward": (lambda: None, without_tape, 1.0),
        "Backward": (tape, lambda y: torch.autograd.backward(y, dy), backward),
    }
    return Work(passes, flops, moved)


class Bench:
    """A device and its clock."""

    def __init__(self, device):
        self.device = device
        card = device.type == "cuda"
        self.flush = torch.empty(FLUSH, dtype=torch.uint8, device=device) if card else None

    def random(self, *shape, std=1.0, grad=False):
        x = torch.randn(*shape, device=self.device, dtype=torch.float32) * std
        return x.to(torch.bfloat16).requires_grad_(grad)

    def time(self, prepare, run):
        """Seconds that `run` takes on what `prepare` returns."""
        x = prepare()
        if self.flush is None:
            start = time.perf_counter()
            run(x)
            return time.perf_counter() - start
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush.zero_()
        start.record()
        run(x)
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def gemm(bench, T, N, K):
    x, w = bench.random(T, K, grad=True), bench.random(N, K, grad=True)
    return both(lambda: (F.linear(x, w),), [x, w], flops=2.0 * T * N * K)


def rmsnorm(bench, T, C, add=False):
    if not hasattr(F, "rms_norm"):
        raise Absent("this PyTorch has no rms_norm (2.4 and later have)")
    w, x = bench.random(C, grad=True), bench.random(T, C, grad=True)
    moved = 2.0 * 2 * T * C  # x in, y out; backward x and dy in, dx out
    if not add:
        return both(lambda: (F.rms_norm(x, (C,), w, 1e-5),), [x, w], moved=moved, backward=1.5)
    b = bench.random(T, C, grad=True)

    def add_rmsnorm():
        total = x + b
        return total, F.rms_norm(total, (C,), w, 1e-5)

    return both(add_rmsnorm, [x, b, w], moved=2 * moved, backward=1.5)


def flash(bench, T, H, K, D):
    q = bench.random(1, H, T, D, grad=True)
    k, v = (bench.random(1, K, T, D, grad=True) for _ in range(2))
    flops = 2.0 * T * T * D * H  # causal: half of two products
    grouped = {"enable_gqa": True} if H != K else {}

    def attention():
        return (F.scaled_dot_product_attention(q, k, v, is_causal=True, **grouped),)

    return both(attention, [q, k, v], flops=flops, backward=2.5)


def xent(bench, T, C, V):
    x, head = bench.random(T, C, grad=True), bench.random(V, C, std=2 / C**0.5)
    target = torch.randint(V, (T,), device=bench.device)

    def step(_):
        x.grad = None
        F.cross_entropy(F.linear(x, head).float(), target).backward()

    # Loss and dx: ours makes dx in forward.
    return Work({"Forward": (lambda: None, step, 1.0)}, flops=4.0 * T * C * V)


def lora(bench, T, C, R, N):
    x, w = bench.random(T, C, grad=True), bench.random(N, C)
    a, b = bench.random(R, C, std=C**-0.5, grad=True), bench.random(N, R, grad=True)

    def linear():
        return (F.linear(x, w) + 2.0 * F.linear(F.linear(x, a), b),)

    flops = 2.0 * T * (C * N + (C + N) * R)
    # W is frozen: backward makes dx, dA, dB.
    backward = 2.0 * T * (C * N + 2 * (C + N) * R) / flops
    return both(linear, [x, a, b], flops=flops, backward=backward)


class Absent(Exception):
    """A case that this PyTorch has not; the message is the reason."""


OPS = {op.__name__: op for op in (gemm, rmsnorm, flash, xent, lora)}


def real_cases(t):
    """The cases that are timed unasked: those of Code Llama 13B, with T = `t`."""
    products = [(t, C, C), (t, INNER, C), (t, C, INNER), (1, C, C)]
    return [f"gemm/BF16 T={rows} N={n} K={k}" for rows, n, k in products] + [
        f"rmsnorm/BF16 T={t} C={C}",
        f"rmsnorm/BF16 add T={t} C={C}",
        f"flash/BF16 T={t} H={HEADS} K={HEADS} D={D}",
        f"xent/BF16 T={t} C={C} V={V}",
        f"lora/BF16 T={t} C={C} R={R} N={C}",
    ]


def build(bench, case):
    """The work of a case by its name, `OP/BF16 [add] SIZES`."""
    op, _, rest = case.partition("/")
    dtype, *words = rest.split() or [""]
    if op not in OPS or dtype != "BF16":
        raise Absent("not a case of this script")
    try:
        sizes = {name: int(value) for name, value in (word.split("=") for word in words if "=" in word)}
        flags = {word: True for word in words if "=" not in word}
        return OPS[op](bench, **sizes, **flags)
    except (TypeError, ValueError) as e:
        raise Absent(f"not a case of this script: {e}") from e


def on_demand(bench):
    """Answers each line of stdin, a case and a pass, with the seconds of one run."""
    case, work = None, None
    for line in sys.stdin:
        wanted, _, name = line.strip().rpartition(" ")
        try:
            if wanted != case:
                case, work = wanted, build(bench, wanted)
                # The first runs compile and allocate.
                for prepare, run, _ in work.passes.values():
                    bench.time(prepare, run)
            if name not in work.passes:
                raise Absent(f"no pass {name}")
            print(bench.time(*work.passes[name][:2]), flush=True)
        except Absent as e:
            case, work = None, None
            print(f"absent {e}", flush=True)


def measure(bench, case, repeat):
    """Times the passes of a case, leaving out the first two runs, which compile and allocate."""
    results = {}
    work = build(bench, case)
    for name, (prepare, run, factor) in work.passes.items():
        times = [bench.time(prepare, run) for _ in range(repeat + 2)][2:]
        median = statistics.median(times)
        unit, amount = ("tflop_per_s", work.flops / 1e12) if work.flops else ("gb_per_s", work.moved / 1e9)
        rate = factor * amount / median
        results[f"{case} {name}"] = {"median_s": median, "min_s": min(times), "max_s": max(times), unit: rate}
        print(f"{case + ' ' + name:<56}{1e3 * median:>10.3f} ms {rate:>9.1f} {unit}", flush=True)
    return results


def main():
    parser = argparse.ArgumentParser(description="Time PyTorch on the shapes of our benches.")
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    parser.add_argument("--repeat", type=int, default=20, help="timed runs of each; the figure is their median")
    parser.add_argument("--rows", type=int, default=4096, help="tokens, T")
    parser.add_argument("--on-demand", action="store_true", help="time what stdin names, a line a run")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(OPS))
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(OPS))
    if unknown:
        parser.error(f"there is no {unknown[0]}: {', '.join(OPS)}")
    if args.repeat < 1 or args.rows < 1:
        parser.error("--repeat and --rows are at least 1")
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("pytorch.py: this PyTorch sees no card: use --device cpu, or install its CUDA build")
    card = args.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if card else "cpu")
    torch.manual_seed(1)
    name = torch.cuda.get_device_name() if card else f"CPU, {torch.get_num_threads()} threads"
    print(f"PyTorch {torch.__version__} on {name}", flush=True)
    bench = Bench(device)
    if args.on_demand:
        return on_demand(bench)
    results = {}
    for case in real_cases(args.rows):
        if not args.names or case.partition("/")[0] in args.names:
            try:
                results |= measure(bench, case, args.repeat)
            except Absent as e:
                print(f"{case}: left out, {e}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
