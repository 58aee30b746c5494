"""Contenders: a function for each sets up a case and returns a call to be timed.

It takes ``(case, operands, threads)`` with NumPy arrays x, weight and bias, and may keep whatever
does not depend on x: only the call itself is timed. It raises `Unsupported` for cases that it does
not compute. gradients.py has the contenders for gradients.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.cases import Case
from tconv.arrays.dtypes import as_dtype

Thunk = Callable[[], Any]
Operands = tuple[np.ndarray, ...]


SEED = 0
"""The seed of all operands."""


class Unsupported(Exception):
    """The contender cannot compute such a case."""


def operands(case: Case, dtype: str, seed: int, want: str = "y") -> Operands:
    """The operands of a case, the same in every process.

    That is x, weight and bias for want "y"; y and weight for "x"; x and y for "w"; x, weight and
    the gradient of y for a "step". The halves are drawn in float32 and rounded.
    """
    rng, kind = np.random.default_rng(seed), np.float64 if dtype == "float64" else np.float32
    x = rng.standard_normal(case.x_shape, kind)
    weight = rng.standard_normal(case.weight_shape, kind)
    weight /= kind(np.sqrt(case.C // case.G * case.K ** len(case.I)))
    if want == "y":
        found: Operands = x, weight, rng.standard_normal(case.M, kind)
    else:
        y = rng.standard_normal(case.geometry.y_shape, kind)
        found = {"x": (y, weight), "w": (x, y), "step": (x, weight, y)}[want]
    return tuple(array.astype(as_dtype(np, dtype), copy=False) for array in found)


def as_tensor(array: np.ndarray) -> Any:
    """PyTorch's view of an array. Of bfloat16 the two libraries share the bits only."""
    import torch as library

    if array.dtype.name == "bfloat16":
        return library.from_numpy(array.view(np.int16)).view(library.bfloat16)
    return library.from_numpy(array)


def as_array(result: Any) -> np.ndarray:
    """NumPy's view of what a contender returned."""
    if hasattr(result, "detach"):
        result = result.detach()
        if "bfloat16" in str(result.dtype):
            import torch as library

            return result.view(library.int16).numpy().view(as_dtype(np, "bfloat16"))
    return np.asarray(result)


# ---- tconv ---------------------------------------------------------------------------------------


def plan(case: Case, arrays: Operands, threads: int) -> Thunk:
    """`tconv.plan` with packed weights, writing to the same output each time."""
    call, packed = _planned(case, arrays, threads)
    x, _, bias = arrays
    y = np.empty(case.geometry.y_shape, x.dtype)
    return lambda: call(x, packed, bias, y)


def plan_new(case: Case, arrays: Operands, threads: int) -> Thunk:
    """`tconv.plan` with packed weights and a new output in each call."""
    call, packed = _planned(case, arrays, threads)
    x, _, bias = arrays
    return lambda: call(x, packed, bias)


def _planned(case: Case, arrays: Operands, threads: int) -> tuple[Any, Any]:
    _, weight, _ = arrays
    call = plan_of(case, weight.dtype.name, threads)
    return call, call.pack(weight)


def plan_of(case: Case, dtype: str, threads: int) -> Any:
    """tconv's plan for a case; `str` of it has the expected time."""
    import tconv

    return tconv.plan(
        case.x_shape, case.weight_shape, dtype=dtype, threads=threads, **case.keywords
    )  # fmt: skip


def functional(case: Case, arrays: Operands, threads: int) -> Thunk:
    """`tconv.conv_transpose`, which packs weights and allocates its output each time."""
    import tconv

    return lambda: tconv.conv_transpose(*arrays, threads=threads, **case.keywords)


def portable(case: Case, arrays: Operands, threads: int) -> Thunk:
    """The path that every array library takes, on NumPy; BLAS brings the threads."""
    from tconv.portable.contract import contract

    x, weight, bias = arrays
    geometry = case.geometry
    return lambda: contract(geometry, "y", x, weight, bias=bias)


# ---- others --------------------------------------------------------------------------------------


def torch(case: Case, arrays: Operands, threads: int) -> Thunk:
    """`torch.nn.functional.conv_transpose*d` on the CPU, without autograd."""
    import torch as library

    library.set_num_threads(threads)
    library.set_grad_enabled(False)
    x, weight, bias = map(as_tensor, arrays)
    function = getattr(library.nn.functional, f"conv_transpose{len(case.I)}d")
    return lambda: function(x, weight, bias, **case.keywords)


def onnx_run(case: Case, arrays: Operands, threads: int) -> Thunk:
    """ONNX Runtime's `session.run`, weights as initialisers."""
    made, feeds = _session(case, arrays, threads), {"x": arrays[0]}
    return lambda: made.run(None, feeds)[0]


def onnx_bound(case: Case, arrays: Operands, threads: int) -> Thunk:
    """ONNX Runtime with input and output bound to arrays that stay where they are."""
    made, x = _session(case, arrays, threads), arrays[0]
    y, binding = np.empty(case.geometry.y_shape, x.dtype), made.io_binding()
    binding.bind_input("x", "cpu", 0, x.dtype, x.shape, x.ctypes.data)
    binding.bind_output("y", "cpu", 0, y.dtype, y.shape, y.ctypes.data)

    def call(x: np.ndarray = x) -> np.ndarray:  # x, whose memory the binding does not keep
        made.run_with_iobinding(binding)
        return y

    return call


def _session(case: Case, arrays: Operands, threads: int) -> Any:
    from onnx import helper

    x, weight, bias = arrays
    rank, names = len(case.I), ["x", "w", "b"]
    node = helper.make_node(
        "ConvTranspose", names, ["y"], strides=[case.s] * rank, pads=[case.p] * 2 * rank,
        output_padding=[case.a] * rank, dilations=[case.d] * rank, group=case.G,
    )  # fmt: skip
    return session([node], {"w": weight, "b": bias}, x.shape, case.geometry.y_shape, threads)


def session(
    nodes: Sequence[Any],
    weights: dict[str, np.ndarray],
    x_shape: Sequence[int | str],
    y_shape: Sequence[int | str],
    threads: int,
) -> Any:
    """ONNX Runtime's session of nodes that make "y" of "x"; sizes not known yet have names."""
    import onnxruntime
    from onnx import helper, numpy_helper

    kind = helper.np_dtype_to_tensor_dtype(next(iter(weights.values())).dtype)
    x_info, y_info = (
        helper.make_tensor_value_info(name, kind, shape)
        for name, shape in (("x", x_shape), ("y", y_shape))
    )
    kept = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "case", [x_info], [y_info], kept)
    model = helper.make_model(
        graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)]
    )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        raise Unsupported(str(error)) from None


def jax(case: Case, arrays: Operands, threads: int) -> Thunk:
    """`jax.lax.conv_general_dilated`, compiled, which is what `conv_transpose` of JAX calls."""
    if hasattr(os, "sched_setaffinity"):  # JAX has no other bound on its threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import jax as library

    library.config.update("jax_enable_x64", True)
    x, weight, bias = arrays
    rank, reach = len(case.I), case.d * (case.K - 1)
    grouped = weight.reshape(case.G, case.C // case.G, *weight.shape[1:])
    kernel = np.flip(grouped.swapaxes(1, 2), range(3, 3 + rank))
    kernel = kernel.reshape(case.M, case.C // case.G, *weight.shape[2:])

    @library.jit
    def compute(x: Any, kernel: Any, bias: Any) -> Any:
        y = library.lax.conv_general_dilated(
            x, kernel, window_strides=[1] * rank,
            padding=[(reach - case.p, reach - case.p + case.a)] * rank,
            lhs_dilation=[case.s] * rank, rhs_dilation=[case.d] * rank,
            feature_group_count=case.G,
        )  # fmt: skip
        return y + bias.reshape(-1, *[1] * rank)

    on_device = list(map(library.device_put, (x, kernel, bias)))
    return lambda: compute(*on_device).block_until_ready()


def tinyml(case: Case, arrays: Operands, threads: int) -> Thunk:
    """`Deconv2D` of tinyml: square pictures only, no groups, padding 0 or 1.

    It has a bias and does not add it, so that is done here, in place.
    """
    if len(set(case.I)) != 1 or len(case.I) != 2 or case.G > 1 or case.p > 1 or case.a:
        raise Unsupported("square pictures, one group, padding 0 or 1, no output_padding")
    from tinyml.layers import Deconv2D

    x, weight, bias = arrays
    size = (case.C, *case.I)
    layer = Deconv2D(
        "case", size, case.C, case.K, case.K, case.s, dilation=case.d, padding=case.p
    )  # fmt: skip
    layer.weight.tensor, column = weight, bias.reshape(-1, 1, 1)

    def call() -> np.ndarray:
        y = layer.forward(x)
        y += column
        return y

    return call


CONTENDERS = {
    function.__name__: f"bench.peers:{function.__name__}"
    for function in (
        plan, plan_new, functional, portable, torch, onnx_run, onnx_bound, jax, tinyml,
    )
}  # fmt: skip
"""The function of each contender."""

PEERS = ("torch", "onnx_run", "onnx_bound")
"""Contenders whose best time tconv is compared with; the others only stand beside."""

PACKAGES = {
    "torch": "torch",
    "onnx_run": "onnxruntime",
    "onnx_bound": "onnxruntime",
    "onnx_conv": "onnxruntime",
    "onnx": "onnxruntime",
    "jax": "jax",
    "tinyml": "tinyml",
}
"""The package that a contender needs besides tconv."""
