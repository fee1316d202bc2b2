"""A contrastive training step whose similarity tensor never exists: python examples/train.py

In-batch negatives: every query meets every document. The weights per query token are learned
along with the tokens.
"""

import torch
from late_interaction_kernels import maxsim

torch.manual_seed(0)
encoder = torch.nn.Embedding(1000, 64)
importance = torch.nn.Embedding(1000, 1)
torch.nn.init.zeros_(importance.weight)
optimizer = torch.optim.Adam([*encoder.parameters(), *importance.parameters()], lr=0.02)

document_ids = torch.randint(0, 1000, (16, 60))
query_ids = document_ids.gather(1, torch.randint(0, 60, (16, 12)))  # each query quotes its document
mask = torch.arange(60) < torch.randint(30, 61, (16, 1))

losses = []
for _ in range(30):
    queries, documents = encoder(query_ids), encoder(document_ids)
    weights = importance(query_ids).squeeze(-1).sigmoid() * 2
    scores = maxsim(queries, documents, d_mask=mask, normalize=True, q_weights=weights)
    loss = torch.nn.functional.cross_entropy(scores / 4, torch.arange(16))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
assert losses[-1] < losses[0] / 2
