"""Contenders for gradients, as in peers.py: of x, of the weight, or of both in a training step.

The gradient of x is the convolution that the case is the transpose of, ``x = conv(y, weight)``. In
a step of training the weight changes every time, so nothing that depends on it may be kept.
"""

from typing import Any

import numpy as np

from bench.cases import Case
from bench.peers import Operands, Thunk, Unsupported, as_tensor, session

# ---- the gradient of x: a convolution ------------------------------------------------------------


def conv(case: Case, arrays: Operands, threads: int) -> Thunk:
    """`tconv.conv`, which packs weights and allocates its output each time."""
    import tconv

    keywords = case.keywords_of_conv | {"input_size": case.I, "threads": threads}
    return lambda: tconv.conv(*arrays, **keywords)


def planned_conv(case: Case, arrays: Operands, threads: int) -> Thunk:
    """`tconv.plan` for it with packed weights, writing to the same output each time."""
    import tconv

    y, weight = arrays
    options: dict[str, Any] = {"dtype": y.dtype, "threads": threads}
    call = tconv.plan(case.x_shape, case.weight_shape, want="x", **options, **case.keywords)
    packed, x = call.pack(weight), np.empty(case.x_shape, y.dtype)
    return lambda: call(y, packed, out=x)


def portable_conv(case: Case, arrays: Operands, threads: int) -> Thunk:
    """The path that every array library takes, on NumPy."""
    from tconv.portable.contract import contract

    geometry = case.geometry
    return lambda: contract(geometry, "x", *arrays)


def torch_conv(case: Case, arrays: Operands, threads: int) -> Thunk:
    """`torch.nn.functional.conv*d` on the CPU, without autograd."""
    library = _torch(threads)
    library.set_grad_enabled(False)
    y, weight = map(as_tensor, arrays)
    function = getattr(library.nn.functional, f"conv{len(case.I)}d")
    return lambda: _cropped(case, function(y, weight, None, **case.keywords_of_conv))


def onnx_conv(case: Case, arrays: Operands, threads: int) -> Thunk:
    """ONNX Runtime's Conv with weights as initialisers, which it packs once: less work."""
    from onnx import helper

    y, weight = arrays
    rank = len(case.I)
    if case.a >= case.s:
        raise Unsupported("output_padding of a stride or more, which leaves cells of y over")
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], strides=[case.s] * rank, pads=[case.p] * 2 * rank,
        dilations=[case.d] * rank, group=case.G,
    )  # fmt: skip
    made, feeds = session([node], {"w": weight}, y.shape, case.x_shape, threads), {"x": y}
    return lambda: made.run(None, feeds)[0]


def _cropped(case: Case, x: Any) -> Any:
    """PyTorch's result without the positions that an output_padding adds."""
    if case.a < case.s:
        return x
    return x[(..., *(slice(size) for size in case.I))]


# ---- the gradient of the weight ------------------------------------------------------------------


def weight_gradient(case: Case, arrays: Operands, threads: int) -> Thunk:
    """`tconv.conv_weight_gradient`."""
    import tconv

    kernel = (case.K,) * len(case.I)
    return lambda: tconv.conv_weight_gradient(*arrays, kernel, threads=threads, **case.keywords)


def portable_weight_gradient(case: Case, arrays: Operands, threads: int) -> Thunk:
    """The path that every array library takes, on NumPy."""
    from tconv.portable.contract import contract

    geometry = case.geometry
    return lambda: contract(geometry, "w", *arrays)


def torch_weight_gradient(case: Case, arrays: Operands, threads: int) -> Thunk:
    """PyTorch's `convolution_backward`, asked for this gradient alone."""
    library, rank = _torch(threads), len(case.I)
    library.set_grad_enabled(False)
    x, y = map(as_tensor, arrays)
    weight = as_tensor(np.zeros(case.weight_shape, arrays[0].dtype))  # of which it takes the shape
    lists = [[value] * rank for value in (case.s, case.p, case.d)]
    function = library.ops.aten.convolution_backward
    last = True, [case.a] * rank, case.G, [False, True, False]
    return lambda: function(y, x, weight, None, *lists, *last)[1]


# ---- a step of training --------------------------------------------------------------------------


def step(case: Case, arrays: Operands, threads: int) -> Thunk:
    """`tconv.conv_transpose_vjp`: y, then both gradients."""
    import tconv

    x, weight, dy = arrays

    def call() -> Any:
        y, pull_back = tconv.conv_transpose_vjp(x, weight, threads=threads, **case.keywords)
        return y, *pull_back(dy)[:2]

    return call


def portable_step(case: Case, arrays: Operands, threads: int) -> Thunk:
    """The path that every array library takes, on NumPy, three times."""
    from tconv.portable.contract import contract

    (x, weight, dy), geometry = arrays, case.geometry
    letters = ("y", x, weight), ("x", dy, weight), ("w", x, dy)
    return lambda: tuple(contract(geometry, want, a, b) for want, a, b in letters)


def torch_step(case: Case, arrays: Operands, threads: int) -> Thunk:
    """`torch.nn.functional.conv_transpose*d`, and autograd back to x and weight."""
    library = _torch(threads)
    x, weight, dy = map(as_tensor, arrays)
    known = x.requires_grad_(), weight.requires_grad_()
    function = getattr(library.nn.functional, f"conv_transpose{len(case.I)}d")

    def call() -> Any:
        y = function(x, weight, None, **case.keywords)
        return y, *library.autograd.grad(y, known, dy)

    return call


def _torch(threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    return torch
