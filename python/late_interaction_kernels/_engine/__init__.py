"""What the public modules are faces of. Each module here may import those above it in this list, and no other:

``environment``, ``problem``       variables of the environment; one scoring problem, by names
``numpy_arrays``, ``torch_arrays`` what is asked of an array, for one kind of array each
``native``                         the calls of the extension, for both kinds
``torch_plain``, ``torch_ops``     the operation in plain torch; operators and gradients for torch
``verbs``                          score, topk, merge_topk and grad, of whichever kind of array
``checks``                         what users pass, checked and made a problem
``blocks``, ``torch_blocks``       documents that are made a block at a time
``short``                          the way of the commonest calls, past all this

tests/check_imports.py holds to it.
"""
