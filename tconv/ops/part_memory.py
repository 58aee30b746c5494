"""Memory that one part of a contraction takes, by sizes alone: nothing is compiled for it."""

from math import prod

import numpy as np

import tconv.engine as engine
from tconv.arrays.dtypes import FLOATING_TYPES, TYPES, as_dtype
from tconv.errors import MemoryLimitError
from tconv.geometry.geometry import OPERANDS, Geometry, Letter
from tconv.ops.dispatch import SMALL_BYTES, Call, usable_bytes
from tconv.portable import contract as portable

__all__ = ["PartMemory", "check_part"]

_ENGINE_BYTES = 2**21  # of workspace a thread
_PACKED = 2  # packed weights are filled up to whole vectors; without Winograd never to more


class PartMemory(dict[str, int]):
    """Bytes by what holds them: "window" of the operand, "result", "weight", "work".

    >>> PartMemory.of(Geometry.of((1, 8, 64), (8, 4, 3), stride=2), "y", "float32")
    {'window': 2048, 'result': 2064, 'weight': 768, 'work': 2097152}
    """

    @classmethod
    def of(cls, geometry: Geometry, want: Letter, dtype: str) -> "PartMemory":
        """Memory of one part with ``method="direct"`` and one thread."""
        types, (first, second) = TYPES[dtype], OPERANDS[want]
        item = as_dtype(np, dtype).itemsize
        window = prod(geometry.shape_of(first)) * item
        result = prod(geometry.shape_of(want)) * as_dtype(np, types.result).itemsize
        other = prod(geometry.shape_of(second)) * item
        if engine.serves(geometry, want, dtype, 1):
            work = _ENGINE_BYTES
            if geometry.data_format == "channels_last" or dtype not in FLOATING_TYPES:
                work += window + result  # channels first, or real and imaginary parts
        else:
            work = portable.workspace_bytes(geometry, want, types.accumulator, False)
        weight = other if want == "w" else _PACKED * other
        return cls(window=window, result=result, weight=weight, work=work)

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.values())

    def __str__(self) -> str:
        return ", ".join(f"{name} {size:,}" for name, size in self.items())


def check_part(want: Letter, geometry: Geometry, dtype: str, call: Call) -> None:
    """Compare the memory of the largest part with the limit of a call, before anything is computed.

    Raises
    ------
    MemoryLimitError : one part alone needs more
    """
    memory = PartMemory.of(geometry, want, dtype)
    limit, name = call.max_bytes, f"max_bytes={call.max_bytes:,}" if call.max_bytes else ""
    if limit is None:
        if memory.total <= SMALL_BYTES:
            return
        limit, name = usable_bytes()
    if memory.total > limit:
        raise MemoryLimitError(
            f"{call.name} needs {memory.total:,} bytes for one chunk ({memory}) but {name}; pass "
            "smaller chunks."
        )
