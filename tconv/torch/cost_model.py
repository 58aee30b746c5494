"""Cost model of PyTorch's layers on a CPU, in the scale of the engine's plans.

The constants were fitted to PyTorch 2.13 with oneDNN, with one and two threads: 190 convolutions of
`bench/convolutions.py` on Zen 5, and 92 transposed ones of `bench/run.py` on Zen 4. They
choose between PyTorch and tconv, and 1 of 100 choices is wrong; most times are predicted within a
factor of 1.5, those of layers that tconv computes several times as fast are further off.
``python -m bench.torch_costs`` shows this by family, for the results of this processor.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from math import prod
from typing import NamedTuple

from tconv.engine import CYCLES_PER_US, expected_us, host_target
from tconv.geometry.geometry import Geometry, Letter

__all__ = ["Processor", "hash_us", "is_worth", "layer_us", "pass_us", "processor"]

LAYER_US = 8.0  # overhead of a convolution
_OWN_US = 12.0  # of a module of tconv's, beyond its plan
_BYTES_PER_CYCLE = 14.0
_SHARED_US = 20.0  # work that is worth a thread
_SHARE, _STRIDED_SHARE, _ONE_TAP_SHARE, _VOLUME_SHARE = 0.85, 0.55, 0.6, 0.36  # of the peak
_TRANSPOSED_SHARE, _COLUMN_CYCLES = 0.7, 2.0
_FEW = 16.0  # products of a sum, or output channels: a layer of that few is slower
_DEPTHWISE_CYCLES = 0.12  # for each product
_HASH_BYTES_PER_CYCLE = 7.0  # of the weight, which is read at each call
_GRADIENTS = 2.0  # times of a layer that both gradients take by PyTorch
_WEIGHT_GRADIENT = 1.5  # times of a layer that the weight's takes by tconv


class Processor(NamedTuple):
    """Peak of a core in products and sums of a type, and the threads of a call."""

    flops_per_us: float
    threads: int
    item_bytes: int

    def shared(self, us: float) -> float:
        """Time of work that as many threads share as it is worth."""
        return us / min(self.threads, max(1.0, us / _SHARED_US))

    def pass_us(self, elements: float) -> float:
        """Microseconds of reading or writing so many elements on one thread."""
        return pass_us(self.item_bytes * elements)


def pass_us(byte_count: float) -> float:
    """Microseconds of reading or writing so many bytes on one thread."""
    return byte_count / _BYTES_PER_CYCLE / CYCLES_PER_US


@cache
def processor(threads: int, item_bytes: int = 4) -> Processor:
    """Describe this processor with so many of PyTorch's threads."""
    here = host_target()
    lanes = here.vector_bits // (8 * item_bytes) / here.steps
    flops = lanes * (4 if here.has_fma else 2) * CYCLES_PER_US
    return Processor(flops, max(1, min(threads, here.cores)), item_bytes)


def layer_us(
    is_transposed: bool,
    x: Sequence[int],
    weight: Sequence[int],
    y: Sequence[int],
    groups: int,
    here: Processor,
) -> float:
    """Predict PyTorch's microseconds of a layer by the shapes of input, weight and output."""
    taps, cells = prod(weight[2:]), prod(y[2:])
    us = here.pass_us(prod(x) + prod(y))
    if is_transposed:
        columns, depth = x[0] * prod(x[2:]) * prod(weight[1:]) * groups, weight[0] // groups
        share = _TRANSPOSED_SHARE * depth / (depth + _FEW) * min(1.0, weight[1] / _FEW)
        us += 2 * columns * depth / (share * here.flops_per_us)
        us += columns * _COLUMN_CYCLES / CYCLES_PER_US
    elif weight[1] == 1 and groups > 1:
        us += _DEPTHWISE_CYCLES * prod(y) * taps / CYCLES_PER_US
    else:
        depth, outputs = weight[1] * taps, weight[0] // groups
        share = _share(len(x) - 2, taps, prod(x[2:]) > 1.5 * cells)
        share *= depth / (depth + _FEW) * min(1.0, outputs / _FEW)
        us += 2 * y[0] * weight[0] * cells * depth / (share * here.flops_per_us)
    return LAYER_US + here.shared(us) + here.pass_us(prod(weight))


def _share(rank: int, taps: int, is_strided: bool) -> float:
    """Share of the peak that a dense convolution reaches."""
    if rank > 2:
        return _VOLUME_SHARE
    if taps == 1:
        return _ONE_TAP_SHARE
    return _STRIDED_SHARE if is_strided else _SHARE


@lru_cache(maxsize=4096)
def is_worth(
    geometry: Geometry, want: Letter, dtype: str, threads: int, learns: bool, is_frozen: bool
) -> bool:
    """Whether tconv is predicted to take less time than PyTorch for a layer.

    Parameters
    ----------
    geometry : of the layer, batched and channels first
    want : "y" of a transposed convolution, "x" of a convolution
    dtype : of all operands
    threads : PyTorch's
    learns : whether gradients of the weight and the input are wanted as well, and the weight then
        changes, so that it is packed for each call
    is_frozen : whether the weight is not read to detect changes
    """
    if dtype not in ("float32", "float64"):
        return want == "y"  # of types that PyTorch widens, it loses with transposed ones only
    us = expected_us(geometry, want, dtype, threads, kept=not learns)
    if us is None:
        return False
    here = processor(threads, 8 if dtype == "float64" else 4)
    read: Letter = "x" if want == "y" else "y"
    weight = geometry.weight_shape
    theirs_us = layer_us(
        want == "y",
        geometry.shape_of(read),
        weight,
        geometry.shape_of(want),
        geometry.groups,
        here,
    )
    ours_us = _OWN_US + us
    if learns:
        other_us = expected_us(geometry, read, dtype, threads, kept=False)
        if other_us is None:
            return False
        ours_us += other_us + _WEIGHT_GRADIENT * us
        theirs_us *= 1 + _GRADIENTS
    elif not is_frozen:
        ours_us += hash_us(here.item_bytes * prod(weight), threads)
    return ours_us < theirs_us


def hash_us(byte_count: float, threads: int) -> float:
    """Predict the microseconds of reading weights to detect changes."""
    return processor(threads).shared(byte_count / _HASH_BYTES_PER_CYCLE / CYCLES_PER_US)
