"""What the public modules are faces of. Each module here may import those above it in this
list, and no other; tests/check_imports.py holds to it.

kinds            what type checkers are told of arrays
environment      variables of the environment
problem          one scoring problem, by names
numpy_arrays     what is asked of an array of NumPy's
torch_arrays     what is asked of a tensor of torch's, and what is between one and its memory
native           the calls of the extension, for both kinds
torch_plain      the operation in plain torch
torch_metal      the library's Metal kernels, on torch's queue
torch_mps        what computes an operation on an Apple GPU
torch_ops        operators and gradients for torch
verbs            score, topk, merge_topk and grad, of whichever kind of array
checks           what users pass, checked and made a problem
compressed       compressed documents, likewise
torch_blocks     gradients of documents that are made a block at a time
blocks           such documents
short            the way of the commonest calls, past all this
"""
