"""The loops of a weight gradient keep their sums in registers, on every processor."""

from functools import partial

import numpy as np
import pytest
from assemblies import TARGETS, inner_loop

from tconv.engine.codegen.code import ElementType
from tconv.engine.compile.jit import assembly
from tconv.engine.kernels.transpose import transpose_out
from tconv.engine.target.target import named_target
from tconv.engine.weight_gradient.driver import run_dot, run_rank1
from tconv.engine.weight_gradient.kernels import dot_kernel, rank1_kernel, transpose_in


@pytest.mark.parametrize("cpu", TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("kernel", "tiles"), [(rank1_kernel, "rank1_tiles"), (dot_kernel, "dot_tiles")]
)
def test_the_inner_loop_keeps_its_sums_in_registers(kernel, tiles, cpu, dtype):
    here = named_target(cpu)
    number = ElementType(dtype, here)
    for tile in getattr(here.isa, tiles):
        emit = partial(kernel(*tile), name="kernel", element=number)
        loop = inner_loop(assembly("kernel", emit, here))
        if here.has_fma:
            multiplications = sum("fma" in line or "fmla" in line for line in loop)
            assert multiplications == np.prod(tile), tile
        assert not [line for line in loop if "sp)" in line or "[sp" in line], tile


@pytest.mark.parametrize("cpu", TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_kernel_is_code_for_every_processor(cpu, dtype):
    here = named_target(cpu)
    number = ElementType(dtype, here)
    kernels = {
        "transpose_in": transpose_in,
        "transpose_out": transpose_out,
        "rank1_kernel": rank1_kernel(3, 2),
        "dot_kernel": dot_kernel(2, 3),
    }
    kernels |= {"run_rank1": run_rank1, "run_dot": run_dot}
    for name, emit in kernels.items():
        text = assembly(name, partial(emit, name=name, element=number), here)
        words = [line.split() for line in text.splitlines() if line.strip()]
        called = [each[1] for each in words if each[0] in ("call", "callq", "bl")]
        assert [name for name in called if not name.startswith("*")] == []
