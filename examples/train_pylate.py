"""Trains a ColBERT model with PyLate, its scores and gradients by this package:

    pip install pylate
    python examples/train_pylate.py [MODEL [STEPS]]

The one line is `patch_pylate()`. The pairs are the demo's: a question and the docstring that
answers it. In-batch negatives; the tensor of similarities is never made.
"""

import json
import random
import sys
from pathlib import Path

import torch
from late_interaction_kernels import patch_pylate
from pylate import losses, models

DEMO = Path(__file__).resolve().parent.parent / "demo"
MODEL = "lightonai/GTE-ModernColBERT-v1"


def pairs():
    """(query, document) texts of the demo's judgments."""
    texts = {}
    for name in ("queries.jsonl", "documents.jsonl"):
        for line in (DEMO / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            texts[name, row["id"]] = row["text"]
    judged = [line.split() for line in (DEMO / "qrels.txt").read_text(encoding="utf-8").splitlines()]
    return [(texts["queries.jsonl", q], texts["documents.jsonl", d]) for q, _, d, _ in judged]


def train(model, batches, rate=1e-5):
    """The losses, one a batch of (query, document) texts."""
    loss_of = losses.Contrastive(model=model, temperature=0.05)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    found = []
    for batch in batches:
        queries, documents = zip(*batch, strict=True)
        features = [
            model.tokenize(list(queries), is_query=True),
            model.tokenize(list(documents), is_query=False),
        ]
        features = [{name: x.to(model.device) for name, x in side.items()} for side in features]
        loss = loss_of(features)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def main(name=MODEL, steps="20"):
    patch_pylate()  # from 1.5.1 on PyLate asks the package by itself for CUDA tensors; this adds CPUs
    model = models.ColBERT(model_name_or_path=name)
    random.seed(0)
    data = pairs()
    found = train(model, [random.sample(data, 16) for _ in range(int(steps))])
    print(f"loss {found[0]:.3f} -> {found[-1]:.3f} in {len(found)} steps of 16 pairs")


if __name__ == "__main__":
    main(*sys.argv[1:])
