"""The libraries measured beside ours: for each case, what a user of theirs would call, on data
already in the form they take. "numpy" and "torch einsum" are the one-line forms; the blocked
and looped ones are what a patient user would write so that similarities stay in cache. Nothing
they could do once for a collection is timed (NumKong's packing of the documents, lists of
arrays).

`peers_of(data)` gives {name: Peer}. A Peer's `run()` returns scores [nq, nd]; those of a
training case return (scores, grad_q, grad_d). `tolerance` is what its answer may be off: the
case's own, and more where the peer is known to round similarities to the storage's dtype. A
peer whose answer is off by more is named in the results and not timed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BLOCK = 8192  # document tokens a block: a block's similarities stay in cache

# The rounding step of a dtype, relative to the value.
UNIT = {"f16": 2.0**-11, "bf16": 2.0**-8}


@dataclass
class Peer:
    run: Callable
    tolerance: float
    note: str = ""


def peers_of(data, grad_scores=None, only=None):
    """All peers that support this case; `only`: their names' beginnings. `grad_scores` is given
    for training.
    """
    makers = [numpy_peers, torch_peers, upstream_peers, maxsim_cpu_peers, numkong_peers]
    if data.case.kind == "topk":
        return {}
    if data.case.kind == "train":
        makers = [torch_training_peers]
    if data.case.bits:
        makers = [decoding_peers, upstream_compressed_peers]
    found = {}
    for maker in makers:
        for name, peer in maker(
            data, data.tolerance(), *([grad_scores] if data.case.kind == "train" else [])
        ):
            if only is None or any(name.startswith(start) for start in only):
                found[name] = peer
    return found


def document_blocks(data):
    """Ranges of documents of about BLOCK tokens: (first, last + 1)."""
    step = max(1, BLOCK // max(1, data.case.ld))
    return [(j, min(j + step, data.case.nd)) for j in range(0, data.case.nd, step)]


def numpy_peers(data, tolerance):
    case = data.case
    if case.storage != "f32":
        return
    q, d = data.q.reshape(-1, case.dim), data.d

    def packed():
        out = np.empty((case.nq, case.nd), np.float32)
        for j in range(case.nd):
            best = (q @ d[data.offsets[j] : data.offsets[j + 1]].T).max(1)
            out[:, j] = best.reshape(case.nq, case.lq).sum(1)
        return out

    def blocked():
        out = np.empty((case.nq, case.nd), np.float32)
        for begin, end in document_blocks(data):
            best = (q @ d[begin:end].reshape(-1, case.dim).T).reshape(len(q), end - begin, case.ld).max(2)
            out[:, begin:end] = best.reshape(case.nq, case.lq, -1).sum(1)
        return out

    def whole():
        best = (q @ d.reshape(-1, case.dim).T).reshape(len(q), case.nd, case.ld).max(2)
        return best.reshape(case.nq, case.lq, case.nd).sum(1)

    if case.packed():
        yield "numpy loop", Peer(packed, tolerance)
    else:
        yield "numpy", Peer(whole, tolerance)
        yield "numpy blocked", Peer(blocked, tolerance)


def torch_arrays(data):
    """(q, d) as tensors of the case's dtype over the same memory."""
    import torch

    if data.case.storage != "bf16":
        return torch.from_numpy(data.q), torch.from_numpy(data.d)
    return tuple(torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) for x in (data.q, data.d))


def torch_peers(data, tolerance):
    import torch

    case = data.case
    q, d = torch_arrays(data)
    scale = None if data.scale is None else torch.from_numpy(data.scale)
    rounded = tolerance + 2 * case.lq * UNIT.get(case.storage, 0)

    def packed():
        out = torch.empty(case.nq, case.nd)
        ends = data.offsets.tolist()
        for j in range(case.nd):
            out[:, j] = (
                (q.view(-1, case.dim) @ d[ends[j] : ends[j + 1]].T).amax(1).view(case.nq, case.lq).sum(1)
            )
        return out.numpy()

    def blocked():
        out = torch.empty(case.nq, case.nd)
        queries = q.float().view(-1, case.dim)
        for begin, end in document_blocks(data):
            block = d[begin:end].float()
            if scale is not None:
                block = block * scale[begin:end, :, None]
            best = (queries @ block.view(-1, case.dim).T).view(len(queries), end - begin, case.ld).amax(2)
            out[:, begin:end] = best.view(case.nq, case.lq, -1).sum(1)
        return out.numpy()

    def einsum():
        return torch.einsum("ild,jtd->ijlt", q, d).max(-1).values.sum(-1).float().numpy()

    def guarded(run):
        def inference():
            with torch.inference_mode():
                return run()

        return inference

    if case.packed():
        yield "torch loop", Peer(guarded(packed), tolerance)
        return
    yield (
        "torch blocked",
        Peer(guarded(blocked), tolerance, "" if case.storage == "f32" else "converts each block to f32"),
    )
    if case.storage != "i8":
        yield "torch einsum", Peer(guarded(einsum), rounded)


def upstream_peers(data, tolerance):
    try:
        from late_interaction_kernels.reference import maxsim_reference
    except ImportError:
        return
    import torch

    case = data.case
    if case.storage == "i8":
        return
    q, d = torch_arrays(data)
    mask = None
    if case.packed():
        lengths = torch.from_numpy(np.diff(data.offsets))
        d = torch.nn.utils.rnn.pad_sequence(list(d.split(lengths.tolist())), batch_first=True)
        mask = torch.arange(d.shape[1])[None] < lengths[:, None]

    def run():
        with torch.inference_mode():
            return maxsim_reference(q, d, d_mask=mask).numpy()

    yield "upstream", Peer(run, tolerance, "its CPU path")


def maxsim_cpu_peers(data, tolerance):
    case = data.case
    if case.storage != "f32" or case.lq > 32:  # wrong scores and crashes beyond 32 query tokens
        return
    import maxsim_cpu

    documents = np.split(data.d, data.offsets[1:-1]) if case.packed() else data.d
    function = maxsim_cpu.maxsim_scores_variable if case.packed() else maxsim_cpu.maxsim_scores
    yield "maxsim-cpu", Peer(lambda: np.stack([function(query, documents) for query in data.q]), tolerance)


def numkong_peers(data, tolerance):
    case = data.case
    if case.storage not in ("f32", "f16") or case.nd > 2000:  # one call of Python a document
        return
    import numkong

    documents = np.split(data.d, data.offsets[1:-1]) if case.packed() else data.d
    packed = [numkong.maxsim_pack(np.ascontiguousarray(document)) for document in documents]

    def run():
        out = np.empty((case.nq, case.nd))
        for i, query in enumerate(data.q):
            pack = numkong.maxsim_pack(query)
            # It returns the sum of the smallest angular distances, 1 - cosine each.
            out[i] = [case.lq - numkong.maxsim_packed(pack, document) for document in packed]
        return out

    yield "numkong", Peer(run, tolerance)


def decoding_peers(data, tolerance):
    """What one writes with torch: decode a block of documents, normalize, multiply."""
    import torch

    case, (centroids, weights) = data.case, (torch.from_numpy(x) for x in data.codec[1])
    q, codes, d = (torch.from_numpy(x) for x in (data.q, data.codes, data.d))
    inv_norms = None if data.scale is None else torch.from_numpy(data.scale)
    bits, every_byte = case.bits, torch.arange(256)
    fields = every_byte[:, None] >> torch.arange(8 - bits, -1, -bits) & (1 << bits) - 1
    bucket = sum((fields >> b & 1) << (bits - 1 - b) for b in range(bits))
    by_byte = weights[bucket]  # [256, elements a byte]

    def run():
        out = torch.empty(case.nq, case.nd)
        queries = q.view(-1, case.dim)
        with torch.inference_mode():
            for begin, end in document_blocks(data):
                rows = slice(begin * case.ld, end * case.ld)
                block = centroids[codes[rows]] + by_byte[d[rows].int()].view(-1, case.dim)
                if inv_norms is None:
                    block = torch.nn.functional.normalize(block, dim=-1)
                else:
                    block = block * inv_norms[rows, None]
                best = (queries @ block.T).view(len(queries), end - begin, case.ld).amax(2)
                out[:, begin:end] = best.view(case.nq, case.lq, -1).sum(1)
        return out.numpy()

    yield "torch decoding", Peer(run, tolerance)


def upstream_compressed_peers(data, tolerance):
    """Its buckets are in the order of the bytes' low bits; so are the same documents' bytes,
    turned round.
    """
    try:
        from late_interaction_kernels.plaid import maxsim_residual
    except ImportError:
        return
    import torch

    case = data.case
    turned = np.packbits(np.unpackbits(data.d, axis=-1, bitorder="big"), axis=-1, bitorder="little")
    centroids, weights = (torch.from_numpy(x) for x in data.codec[1])
    q, codes, d = (torch.from_numpy(x) for x in (data.q, data.codes, turned))
    codes, d = codes.view(case.nd, case.ld), d.view(case.nd, case.ld, -1)
    lengths = torch.full((case.nd,), case.ld, dtype=torch.int32)

    def run():
        with torch.inference_mode():
            return maxsim_residual(q, codes, d, lengths, centroids, weights, case.bits).numpy()

    yield "upstream", Peer(run, tolerance, "its CPU path")


def torch_training_peers(data, tolerance, grad_scores):
    import torch

    case = data.case
    gradient = torch.from_numpy(grad_scores)

    def step_of(score):
        def run():
            q = torch.from_numpy(data.q).requires_grad_()
            d = torch.from_numpy(data.d).requires_grad_()
            scores = score(q, d)
            scores.backward(gradient)
            return scores.detach().numpy(), q.grad.numpy(), d.grad.numpy()

        return run

    def einsum(q, d):
        return torch.einsum("ild,jtd->ijlt", q, d).max(-1).values.sum(-1)

    def similarities(q, d):
        """[nq, lq, nd, ld] by one matrix product, without the copy that einsum's order of
        dimensions costs.
        """
        return (q.reshape(-1, case.dim) @ d.reshape(-1, case.dim).T).view(case.nq, case.lq, case.nd, case.ld)

    yield "torch einsum", Peer(step_of(einsum), tolerance)
    yield "torch matmul", Peer(step_of(lambda q, d: similarities(q, d).max(-1).values.sum(1)), tolerance)
    yield "torch matmul amax", Peer(step_of(lambda q, d: similarities(q, d).amax(-1).sum(1)), tolerance)

    def looped(q, d):
        return torch.stack(
            [(q.reshape(-1, case.dim) @ x.T).max(-1).values.view(case.nq, case.lq).sum(1) for x in d], 1
        )

    yield "torch loop", Peer(step_of(looped), tolerance)
    try:
        from late_interaction_kernels.reference import maxsim_reference
    except ImportError:
        return
    yield "upstream", Peer(step_of(maxsim_reference), tolerance, "its CPU path")
