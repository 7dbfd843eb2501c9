"""PyTorch, transformers and PEFT on a model folder, as a peer of `compare.py`: each line of stdin names a workload and its
tokens, and is answered with the seconds of one run, or with `absent` and the reason.

    python3 tools/peers/torch_model.py MODEL [--threads N] [--dropout P]

Workloads are those of `codelsi bench`: `prefill N`, `decode N` (greedy, with a KV cache), `train N` (one step of AdamW on a
LoRA of rank 16 on all seven linears, bf16 weights, one sequence). The answer to `memory` is the peak resident memory of the
process so far, in bytes.
"""

import argparse
import resource
import sys
import time

try:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
except ImportError as missing:
    sys.exit(f"torch_model.py: {missing.name} is not installed: pip install torch transformers peft")

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Runs:
    """The workloads over one model; an adapter is attached when training is asked for."""

    def __init__(self, folder, dropout):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        self.vocabulary = self.model.config.vocab_size
        self.dropout = dropout
        self.trained = None

    def tokens(self, n):
        return torch.randint(3, self.vocabulary, (1, n))

    @torch.no_grad()
    def prefill(self, n):
        self.model.eval()
        self.model(self.tokens(n), use_cache=True, logits_to_keep=1)

    @torch.no_grad()
    def decode(self, n):
        self.model.eval()
        token, cache = self.tokens(1), None
        for _ in range(n):
            out = self.model(token, past_key_values=cache, use_cache=True)
            cache, token = out.past_key_values, out.logits[:, -1:].argmax(-1)

    def train(self, n):
        if self.trained is None:
            lora = LoraConfig(r=16, lora_alpha=16, lora_dropout=self.dropout, target_modules=LINEARS)
            peft = get_peft_model(self.model, lora)
            weights = [w for w in peft.parameters() if w.requires_grad]
            self.trained = peft, torch.optim.AdamW(weights, lr=1e-4)
        peft, optimizer = self.trained
        peft.train()
        tokens = self.tokens(n)
        peft(tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(peft.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--dropout", type=float, default=0.0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    runs = Runs(args.model, args.dropout)
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    for line in sys.stdin:
        name, _, tokens = line.strip().partition(" ")
        if name == "memory":
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
            continue
        started = time.perf_counter()
        getattr(runs, name)(int(tokens))
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
