#!/usr/bin/env python3
"""Trains a small encoder from scratch on the demo collection's pairs, scored by torch and by
this library: the curves must be the same within the noise of rounding, and the step times are
shown.

    python bench/loss_curve.py [--steps 200] [--seeds 2] [--seconds 45] [--batch 128]
                               [-o bench/results/loss-....json]

The encoder is an embedding and two transformer layers of 128 dimensions over the demo's own
word pieces; a batch is 128 (query, relevant document) pairs, every query against every document
of the batch; scores are of normalized f32 tokens, the loss is cross entropy. All runs of a seed
start from the same weights and see the same batches. The noise is what torch differs by from
itself when it takes the scores in f64; the seeds differ by far more. A seed that might not be
done within --seconds is not begun. The JSON and the plot beside it are written after every
seed."""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from late_interaction_kernels import maxsim
from report import begin_plot, end_plot
from torch.nn.functional import cross_entropy, normalize

ROOT = Path(__file__).resolve().parent.parent
BATCH, DIM, QUERY_TOKENS, DOCUMENT_TOKENS = 128, 128, 32, 100


def torch_maxsim(queries, documents, d_mask):
    """The usual way: the whole similarity tensor."""
    q, d = normalize(queries, dim=-1), normalize(documents, dim=-1)
    similarity = torch.einsum("qsd,ntd->qnst", q, d).masked_fill(~d_mask[None, :, None], -torch.inf)
    return similarity.amax(-1).sum(-1)


def torch_f64_maxsim(queries, documents, d_mask):
    return torch_maxsim(queries.double(), documents.double(), d_mask).float()


def our_maxsim(queries, documents, d_mask):
    return maxsim(queries, documents, d_mask=d_mask, normalize=True)


WAYS = {"torch": torch_maxsim, "ours": our_maxsim, "torch f64": torch_f64_maxsim}
COLORS = {"torch": "#ee6677", "ours": "#4477aa"}


class Encoder(torch.nn.Module):
    def __init__(self, words):
        super().__init__()
        self.words = torch.nn.Embedding(words, DIM, padding_idx=0)
        self.places = torch.nn.Embedding(DOCUMENT_TOKENS, DIM)
        layer = torch.nn.TransformerEncoderLayer(
            DIM, 4, 2 * DIM, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids):
        x = self.words(ids) + self.places.weight[: ids.shape[1]]
        return self.layers(x, src_key_padding_mask=ids == 0)


def read_pairs():
    """Token ids [pairs, 32] and [pairs, 100] of the demo's queries and their documents, 0 =
    padding; and the words.
    """
    words = {}

    def numbers(tokens, length):
        ids = [words.setdefault(token, len(words) + 1) for token in tokens[:length]]
        return ids + [0] * (length - len(ids))

    documents, queries = (
        {
            row["id"]: row["tokens"]
            for row in map(json.loads, (ROOT / f"demo/{name}.jsonl").open(encoding="utf-8"))
        }
        for name in ("documents", "queries")
    )
    relevant = [line.split() for line in (ROOT / "demo/qrels.txt").read_text(encoding="utf-8").splitlines()]
    pairs = [(queries[q], documents[d]) for q, _, d, grade in relevant if int(grade) > 0]
    q = torch.tensor([numbers(tokens, QUERY_TOKENS) for tokens, _ in pairs])
    d = torch.tensor([numbers(tokens, DOCUMENT_TOKENS) for _, tokens in pairs])
    return q, d, len(words) + 1


def train(score, seed, steps, size, device):
    """Losses of each step and the median time of one in ms."""
    torch.manual_seed(seed)
    q_ids, d_ids, words = read_pairs()
    q_ids, d_ids = q_ids.to(device), d_ids.to(device)
    encoder = Encoder(words).to(device)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=5e-4, fused=device == "cuda")
    losses, times = [], []
    for _ in range(steps):
        batch = torch.randperm(len(q_ids))[:size].to(device)
        start = time.perf_counter()
        documents = d_ids[batch]
        # A batch has every document once, so the diagonal is what is relevant.
        scores = score(encoder(q_ids[batch]), encoder(documents), documents != 0)
        loss = cross_entropy(scores, torch.arange(len(batch), device=device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        times.append((time.perf_counter() - start) * 1e3)
    return losses, statistics.median(times)


def plot(result, path):
    pyplot = begin_plot()
    figure, axis = pyplot.subplots(figsize=(8, 4))
    for name, color in COLORS.items():
        for i, losses in enumerate(result[name]["losses"]):
            label = f"{name}, {result[name]['step_ms']:.2f} ms a step" if i == 0 else None
            axis.plot(losses, color=color, lw=0.8, ls="-" if name == "torch" else "--", label=label)
    axis.set(xlabel="step", ylabel="loss", yscale="log")
    axis.set_title(f"{result['device']}, {result['date']}: {result['seeds']} seeds", loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    end_plot(pyplot, figure, path)


def furthest(a, b):
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def summary(runs, steps):
    """Curves, step times and how far apart the curves are, of {way: [(losses, ms), ..]}, one
    entry a seed.
    """
    tail, curves = max(steps // 10, 1), {way: [losses for losses, _ in done] for way, done in runs.items()}
    result = {w: {"losses": curves[w], "step_ms": statistics.median(ms for _, ms in runs[w])} for w in runs}
    seeds = curves["torch"]
    return result | {
        "seeds": len(seeds),
        "final": {way: [statistics.mean(x[-tail:]) for x in found] for way, found in curves.items()},
        "largest_difference_ours": max(map(furthest, seeds, curves["ours"])),
        "largest_difference_torch_f64": max(map(furthest, seeds, curves["torch f64"])),
        "largest_difference_between_seeds": max((furthest(seeds[0], x) for x in seeds[1:]), default=None),
    }


def main():
    parser = argparse.ArgumentParser(description="Loss curves by torch and by this library.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    start, taken = time.monotonic(), 0.0
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    about = {
        "device": name,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "steps": args.steps,
    }
    runs = {way: [] for way in WAYS}
    for score in WAYS.values():  # what is loaded at the first call
        train(score, 0, 1, args.batch, args.device)
    for seed in range(args.seeds):
        begun = time.monotonic()
        if seed and begun - start + taken > args.seconds:
            print(f"no time for seed {seed}")
            break
        for way, score in WAYS.items():
            runs[way].append(train(score, seed, args.steps, args.batch, args.device))
        taken = time.monotonic() - begun
        result = about | summary(runs, args.steps)
        if args.output:
            args.output.write_text(json.dumps(result) + "\n", encoding="utf-8")
            plot(result, args.output.with_suffix(".svg"))
    print(f"{name}: {args.steps} steps, {result['seeds']} seeds, {time.monotonic() - start:.1f} s")
    for way, values in result["final"].items():
        finals = "  ".join(f"{v:.4f}" for v in values)
        print(f"  {way:10s} final loss {finals}   median step {result[way]['step_ms']:.2f} ms")
    between = result["largest_difference_between_seeds"]
    print(
        f"  largest difference from torch's curve: ours {result['largest_difference_ours']:.2e}, torch with "
        "f64 scores "
        f"{result['largest_difference_torch_f64']:.2e}" + (f", another seed {between:.2e}" if between else "")
    )


if __name__ == "__main__":
    main()
