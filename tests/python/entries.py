"""Every public function that takes tensors, by a name, with good arguments of small shapes."""

from __future__ import annotations

from functools import partial

import torch
from late_interaction_kernels import (
    MaxSimScorer,
    maxsim,
    maxsim_padded,
    maxsim_pairs,
    maxsim_varlen,
    plaid,
    retrieve,
)
from late_interaction_kernels.backward import maxsim_backward_unified
from late_interaction_kernels.forward import maxsim_forward
from late_interaction_kernels.fp8 import (
    dequantize_fp8_per_token,
    maxsim_inference_fp8,
    quantize_fp8_per_tensor,
    quantize_fp8_per_token,
)
from late_interaction_kernels.fused_head import maxsim_from_hidden
from late_interaction_kernels.int8 import dequantize_int8_per_token, quantize_int8_per_token
from late_interaction_kernels.mps import maxsim_mps
from late_interaction_kernels.score_pairs import score_pairs_packed
from late_interaction_kernels.topk import maxsim_topk


def flags(*shape):
    """A mask with a kept token in every row."""
    mask = torch.rand(*shape) > 0.4
    mask[..., 0] = True
    return mask


# Long because it is the table of every function of the package.
def entries():
    """name -> (function of keyword arguments, its tensors)."""
    sides = {"q_mask": flags(2, 3), "q_weights": torch.rand(2, 3)}
    padded = {"Q": torch.randn(2, 3, 8), "D": torch.randn(4, 5, 8), "d_mask": flags(4, 5), **sides}
    four = {"Q": torch.randn(2, 3, 8), "D": torch.randn(2, 6, 5, 8), "d_mask": flags(2, 6, 5), **sides}
    pairs = {**padded, "D": torch.randn(2, 5, 8), "d_mask": flags(2, 5)}
    packed = {
        "Q_packed": torch.randn(6, 8),
        "D_packed": torch.randn(9, 8),
        "cu_seqlens_q": torch.tensor([0, 2, 6]),
        "cu_seqlens_d": torch.tensor([0, 4, 4, 9], dtype=torch.int32),
        "q_weights": torch.rand(6),
    }
    bounds = {"max_seqlen_q": 4, "max_seqlen_d": 5}
    listed = {**packed, "pair_q_idx": torch.tensor([0, 1, 1]), "pair_d_idx": torch.tensor([2, 0, 2])}
    lengths = {"query_lengths": torch.tensor([3, 1]), "doc_lengths": torch.randint(1, 6, (2, 6))}
    batch = {"queries": four["Q"], "documents": four["D"], **lengths, "q_weights": sides["q_weights"]}
    codec = {"centroids": torch.randn(7, 8), "bucket_weights": torch.randn(4)}
    codes, residuals = torch.randint(0, 7, (4, 5)), torch.randint(0, 256, (4, 5, 2), dtype=torch.uint8)
    documents = {"codes": codes, "residuals": residuals, "doc_lengths": torch.tensor([5, 1, 3, 2]), **codec}
    flat = {"codes_flat": codes.flatten(), "residuals_flat": residuals.flatten(0, 1), **codec}
    flat["cu_seqlens_d"] = torch.tensor([0, 5, 5, 20])
    (q8, sq), (d8, sd) = quantize_fp8_per_token(padded["Q"]), quantize_fp8_per_token(padded["D"])
    v8, s8 = quantize_int8_per_token(padded["D"])
    _, argmax = maxsim_forward(padded["Q"], padded["D"], save_argmax=True)
    hidden = {
        "Q": padded["Q"],
        "H_d": torch.randn(4, 5, 6),
        "W": torch.randn(8, 6),
        "b": torch.randn(8),
        **sides,
    }
    ids = {"q_ids": torch.randint(0, 3, (2, 3)), "d_ids": torch.randint(0, 3, (4, 5))}
    gradient = {
        "grad_scores": torch.randn(2, 4),
        "Q": padded["Q"],
        "D": padded["D"],
        "argmax": argmax,
        **sides,
    }
    approx = {
        "query_centroid_scores": torch.randn(7, 3),
        "codes": codes,
        "doc_lengths": documents["doc_lengths"],
    }
    approx |= {"q_mask": flags(3), "q_weights": torch.rand(3)}
    eight = {"Q": q8, "D": d8, "scale_Q": sq, "scale_D": sd, "d_mask": flags(4, 5), **sides}

    norms = {**documents, "residuals": residuals.repeat(1, 1, 2), "inv_norms": torch.rand(4, 5)}
    norms["bucket_weights"] = torch.randn(16)

    def best(codes, residuals, centroids, bucket_weights, **rest):
        codec = plaid.Codec(centroids, bucket_weights, 4, "colbert")
        about = {k: rest.pop(k) for k in plaid.CompressedTokens._fields if k in rest}
        D = plaid.CompressedTokens(codes, residuals, codec, **about)
        return maxsim_topk(D=D, k=3, **rest, normalize=True, return_argmax=True)

    best_packed = {
        k: x.flatten(0, 1) if k in ("codes", "residuals", "inv_norms") else x for k, x in norms.items()
    }
    best_packed["cu_seqlens_d"] = flat["cu_seqlens_d"]
    del best_packed["doc_lengths"]

    def int8_pair(Q, values, scale, **rest):
        return maxsim(Q, (values, scale), storage="int8", **rest)

    plain = {"Q": padded["Q"], "D": padded["D"]}
    return {
        "maxsim": (maxsim, padded),
        "maxsim alone": (maxsim, plain),
        "normalized": (partial(maxsim, normalize=True), padded),
        "argmax": (partial(maxsim, return_argmax=True), padded),
        "one query": (maxsim, {"Q": torch.randn(3, 8), "D": padded["D"]}),
        "candidates": (maxsim, four),
        "int8": (partial(maxsim, storage="int8"), padded),
        "int8 pair": (int8_pair, {"Q": padded["Q"], "values": v8, "scale": s8, **sides}),
        "pairs": (maxsim_pairs, pairs),
        "varlen": (partial(maxsim_varlen, **bounds), packed),
        "packed and padded": (
            partial(maxsim_topk, k=2, max_seqlen_d=bounds["max_seqlen_d"]),
            {"Q": padded["Q"], "D": packed["D_packed"], "cu_seqlens_d": packed["cu_seqlens_d"], **sides},
        ),
        "list": (partial(score_pairs_packed, **bounds, return_argmax=True), listed),
        "padded": (maxsim_padded, batch),
        "forward": (partial(maxsim_forward, save_argmax=True), padded),
        "retrieve": (partial(retrieve, top_k=2), padded),
        "retrieve alone": (partial(retrieve, top_k=2), plain),
        "topk": (partial(maxsim_topk, k=3, chunk_size=2, return_argmax=True), padded),
        "scorer": (MaxSimScorer(), padded),
        "scorer retrieves": (partial(MaxSimScorer().retrieve, top_k=2), padded),
        "scorer with ids": (MaxSimScorer(mask_pad_token=0).forward_with_ids, {**plain, **ids}),
        "mps": (maxsim_mps, padded),
        "residual": (partial(plaid.maxsim_residual, nbits=2), {"Q": padded["Q"], **documents, **sides}),
        "residual varlen": (
            partial(plaid.maxsim_residual_varlen, nbits=2, max_seqlen_d=15),
            {"Q": padded["Q"], **flat, **sides},
        ),
        "residual with norms": (
            partial(plaid.maxsim_residual, nbits=4, bit_order="colbert", return_argmax=True),
            {"Q": padded["Q"], **norms, **sides},
        ),
        "residual of no bits": (
            partial(plaid.maxsim_residual, residuals=None, bucket_weights=None, nbits=0),
            {"Q": padded["Q"], **{k: documents[k] for k in ("codes", "doc_lengths", "centroids")}, **sides},
        ),
        "best compressed": (best, {"Q": padded["Q"], **norms, **sides}),
        "best packed": (partial(best, max_seqlen_d=15), {"Q": padded["Q"], **best_packed, **sides}),
        "approx": (plaid.plaid_approx_score, approx),
        "head": (maxsim_from_hidden, {**hidden, "d_mask": flags(4, 5)}),
        "fp8": (maxsim_inference_fp8, eight),
        "backward": (maxsim_backward_unified, gradient),
        "quantize fp8": (quantize_fp8_per_token, {"X": padded["D"]}),
        "quantize fp8 whole": (quantize_fp8_per_tensor, {"X": padded["D"]}),
        "dequantize fp8": (dequantize_fp8_per_token, {"X_fp8": d8, "scale": sd}),
        "quantize int8": (quantize_int8_per_token, {"X": padded["D"]}),
        "dequantize int8": (dequantize_int8_per_token, {"values": v8, "scale": s8}),
    }


def every_argument():
    """(entry, argument) of all of them, for parametrizing."""
    return [(name, argument) for name, (_, tensors) in entries().items() for argument in tensors]


def called(name, argument):
    """How the function names the argument: the parts of a pair by their place."""
    names = {
        "int8 pair": {"values": r"D(\[0\])?", "scale": r"D\[1\]"},
        "best compressed": {"bucket_weights": "D.codec.weights"},
        "best packed": {"bucket_weights": "D.codec.weights"},
    }
    return names.get(name, {}).get(argument, argument)


def parts(result):
    return result if isinstance(result, tuple) else (result,)
