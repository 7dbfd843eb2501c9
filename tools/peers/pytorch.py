"""PyTorch on the shapes that `cargo bench -p codelsi-benches --bench ops` times, so that both can be laid side by side.

    python3 tools/peers/pytorch.py [--device auto|cuda|cpu] [--repeat 20] [--rows 4096] [NAME..]

Random bf16 data; on a card the L2 cache is overwritten before every timed run and times are those of CUDA events.
Without NAMEs, everything: gemm, rmsnorm, flash, xent, lora. The last line is one JSON object, {"op/case": {"median_s":
.., "tflop_per_s" or "gb_per_s": ..}}; figures count what an op must compute or move at the least, as our benches do.
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


class Bench:
    """A device, its clock and the results so far."""

    def __init__(self, device, repeat):
        self.device, self.repeat, self.results = device, repeat, {}
        card = device.type == "cuda"
        self.flush = torch.empty(FLUSH, dtype=torch.uint8, device=device) if card else None

    def random(self, *shape, std=1.0, grad=False):
        x = torch.randn(*shape, device=self.device, dtype=torch.float32) * std
        return x.to(torch.bfloat16).requires_grad_(grad)

    def time(self, prepare, run):
        """Seconds that `run` takes on what `prepare` gives."""
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

    def add(self, name, run, prepare=lambda: None, flops=0.0, moved=0.0):
        """Times `run`, leaving out the first two runs, which compile and allocate."""
        times = [self.time(prepare, run) for _ in range(self.repeat + 2)][2:]
        median = statistics.median(times)
        unit, amount = ("tflop_per_s", flops / 1e12) if flops else ("gb_per_s", moved / 1e9)
        self.results[name] = {"median_s": median, unit: amount / median}
        print(f"{name:<56}{1e3 * median:>10.3f} ms {amount / median:>9.1f} {unit}", flush=True)

    def both(self, name, forward, inputs, flops=0.0, moved=0.0, backward=2.0):
        """`forward`, which gives a tuple, without a tape; then its backward, at `backward` times the cost."""

        def without_tape(_):
            with torch.no_grad():
                forward()

        self.add(f"{name} Forward", without_tape, flops=flops, moved=moved)
        dy = [torch.randn_like(y) for y in forward()]

        def tape():
            for x in inputs:
                x.grad = None
            return forward()

        costs = {"flops": backward * flops, "moved": backward * moved}
        self.add(f"{name} Backward", lambda y: torch.autograd.backward(y, dy), tape, **costs)


def gemm(bench, t):
    for rows, n, k in [(t, C, C), (t, INNER, C), (t, C, INNER), (1, C, C)]:
        x, w = bench.random(rows, k, grad=True), bench.random(n, k, grad=True)
        name = f"gemm/BF16 T={rows} N={n} K={k}"
        bench.both(name, lambda: (F.linear(x, w),), [x, w], flops=2.0 * rows * n * k)


def rmsnorm(bench, t):
    if not hasattr(F, "rms_norm"):
        print("rmsnorm: left out, this PyTorch has no rms_norm (2.4 and later have)")
        return
    a, b = bench.random(t, C, grad=True), bench.random(t, C, grad=True)
    w = bench.random(C, grad=True)

    def add_rmsnorm():
        total = a + b
        return total, F.rms_norm(total, (C,), w, 1e-5)

    x = bench.random(t, C, grad=True)
    moved = 2.0 * 2 * t * C  # x in, y out; backward x and dy in, dx out
    bench.both(f"rmsnorm/BF16 T={t} C={C}", lambda: (F.rms_norm(x, (C,), w, 1e-5),), [x, w], moved=moved, backward=1.5)
    bench.both(f"rmsnorm/BF16 add T={t} C={C}", add_rmsnorm, [a, b, w], moved=2 * moved, backward=1.5)


def flash(bench, t):
    q, k, v = (bench.random(1, HEADS, t, D, grad=True) for _ in range(3))
    flops = 2.0 * t * t * D * HEADS  # causal: half of two products

    def attention():
        return (F.scaled_dot_product_attention(q, k, v, is_causal=True),)

    bench.both(f"flash/BF16 T={t} H={HEADS} K={HEADS} D={D}", attention, [q, k, v], flops=flops, backward=2.5)


def xent(bench, t):
    x, head = bench.random(t, C, grad=True), bench.random(V, C, std=2 / C**0.5)
    target = torch.randint(V, (t,), device=bench.device)

    def step(_):
        x.grad = None
        F.cross_entropy(F.linear(x, head).float(), target).backward()

    bench.add(f"xent/BF16 T={t} C={C} V={V} loss and dx", step, flops=4.0 * t * C * V)


def lora(bench, t):
    x, w = bench.random(t, C, grad=True), bench.random(C, C)
    a, b = bench.random(R, C, std=C**-0.5, grad=True), bench.random(C, R, grad=True)

    def linear():
        return (F.linear(x, w) + 2.0 * F.linear(F.linear(x, a), b),)

    flops = 2.0 * t * (C * C + 2 * C * R)
    # W is frozen: backward makes dx, dA, dB.
    backward = 2.0 * t * (C * C + 4 * C * R) / flops
    bench.both(f"lora/BF16 T={t} C={C} R={R} N={C}", linear, [x, a, b], flops=flops, backward=backward)


ALL = [gemm, rmsnorm, flash, xent, lora]


def main():
    parser = argparse.ArgumentParser(description="Time PyTorch on the shapes of our benches.")
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    parser.add_argument("--repeat", type=int, default=20, help="timed runs of each; the figure is their median")
    parser.add_argument("--rows", type=int, default=4096, help="tokens, T")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(f.__name__ for f in ALL))
    args = parser.parse_args()
    unknown = sorted(set(args.names) - {f.__name__ for f in ALL})
    if unknown:
        parser.error(f"there is no {unknown[0]}: {', '.join(f.__name__ for f in ALL)}")
    if args.repeat < 1 or args.rows < 1:
        parser.error("--repeat and --rows are at least 1")
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("pytorch.py: this PyTorch sees no card: use --device cpu, or install its CUDA build")
    card = args.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if card else "cpu")
    torch.manual_seed(1)
    name = torch.cuda.get_device_name() if card else f"CPU, {torch.get_num_threads()} threads"
    print(f"PyTorch {torch.__version__} on {name}")
    bench = Bench(device, args.repeat)
    for op in ALL:
        if not args.names or op.__name__ in args.names:
            op(bench, args.rows)
    print(json.dumps(bench.results))


if __name__ == "__main__":
    main()
