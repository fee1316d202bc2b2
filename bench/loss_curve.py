#!/usr/bin/env python3
"""Trains a small encoder from scratch on the demo collection's pairs, scored by torch and by this library: the curves
must be the same within the noise between seeds, and the step times are shown.

    python bench/loss_curve.py [--device cuda] [--steps 300] [--seeds 3] [-o bench/results/loss-....json]

The encoder is an embedding and two transformer layers of 128 dimensions over the demo's own word pieces; a batch is 128
(query, relevant document) pairs, every query against every document of the batch; scores are of normalized tokens, the
loss is cross entropy. Both runs of a seed start from the same weights and see the same batches. The plot goes beside
the JSON."""

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


def our_maxsim(queries, documents, d_mask):
    return maxsim(queries, documents, d_mask=d_mask, normalize=True)


class Encoder(torch.nn.Module):
    def __init__(self, words):
        super().__init__()
        self.words = torch.nn.Embedding(words, DIM, padding_idx=0)
        self.places = torch.nn.Embedding(DOCUMENT_TOKENS, DIM)
        layer = torch.nn.TransformerEncoderLayer(DIM, 4, 2 * DIM, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids):
        x = self.words(ids) + self.places.weight[: ids.shape[1]]
        return self.layers(x, src_key_padding_mask=ids == 0)


def read_pairs():
    """Token ids [pairs, 32] and [pairs, 100] of the demo's queries and their documents, 0 = padding; and the words."""
    words = {}

    def numbers(tokens, length):
        ids = [words.setdefault(token, len(words) + 1) for token in tokens[:length]]
        return ids + [0] * (length - len(ids))

    documents, queries = (
        {row["id"]: row["tokens"] for row in map(json.loads, (ROOT / f"demo/{name}.jsonl").open(encoding="utf-8"))}
        for name in ("documents", "queries")
    )
    relevant = [line.split() for line in (ROOT / "demo/qrels.txt").read_text(encoding="utf-8").splitlines()]
    pairs = [(queries[q], documents[d]) for q, _, d, grade in relevant if int(grade) > 0]
    q = torch.tensor([numbers(tokens, QUERY_TOKENS) for tokens, _ in pairs])
    d = torch.tensor([numbers(tokens, DOCUMENT_TOKENS) for _, tokens in pairs])
    return q, d, len(words) + 1


def train(score, seed, steps, device):
    """Losses of each step and the median time of one in ms."""
    torch.manual_seed(seed)
    q_ids, d_ids, words = read_pairs()
    q_ids, d_ids = q_ids.to(device), d_ids.to(device)
    encoder = Encoder(words).to(device)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=5e-4)
    losses, times = [], []
    for _ in range(steps):
        batch = torch.randperm(len(q_ids))[:BATCH].to(device)
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
    for name, color in (("torch", "#ee6677"), ("ours", "#4477aa")):
        for i, losses in enumerate(result[name]["losses"]):
            label = f"{name}, {result[name]['step_ms']:.2f} ms a step" if i == 0 else None
            axis.plot(losses, color=color, lw=0.8, ls="-" if name == "torch" else "--", label=label)
    axis.set(xlabel="step", ylabel="loss", yscale="log")
    axis.set_title(f"{result['device']}, {result['date']}: {result['seeds']} seeds", loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    end_plot(pyplot, figure, path)


def main():
    parser = argparse.ArgumentParser(description="Loss curves by torch and by this library.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    result = {"device": name, "date": time.strftime("%Y-%m-%d"), "steps": args.steps, "seeds": args.seeds}
    for way, score in (("torch", torch_maxsim), ("ours", our_maxsim)):
        runs = [train(score, seed, args.steps, args.device) for seed in range(args.seeds)]
        result[way] = {"losses": [r[0] for r in runs], "step_ms": statistics.median(r[1] for r in runs)}
    tail = max(args.steps // 10, 1)
    finals = {w: [statistics.mean(x[-tail:]) for x in result[w]["losses"]] for w in ("torch", "ours")}
    between = max(finals["torch"]) - min(finals["torch"])
    apart = max(abs(a - b) for a, b in zip(finals["torch"], finals["ours"], strict=True))
    result |= {"finals": finals, "spread_between_seeds": between, "largest_difference_at_a_seed": apart}
    print(f"{name}: final loss (mean of the last {tail} steps), {args.seeds} seeds")
    for way, values in finals.items():
        print(f"  {way:6s} {'  '.join(f'{v:.4f}' for v in values)}   {result[way]['step_ms']:.2f} ms a step")
    print(f"  largest difference at a seed {apart:.4f}, spread between torch's seeds {between:.4f}")
    if args.output:
        args.output.write_text(json.dumps(result) + "\n", encoding="utf-8")
        plot(result, args.output.with_suffix(".svg"))


if __name__ == "__main__":
    main()
