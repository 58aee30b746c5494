"""The micro-kernel of a row GEMM: sums in registers, names that no two share."""

from functools import partial
from itertools import product

import pytest
from assemblies import TARGETS, inner_loop

from tconv.engine.codegen.code import ElementType
from tconv.engine.compile.jit import assembly
from tconv.engine.row_gemm.kernel import RowKernel, row_kernel
from tconv.engine.target.target import named_target

MASKED = [cpu for cpu in TARGETS if named_target(cpu).isa.has_masks]
FLAGS = [*product((False, True), repeat=3)]  # copies, is_cut, is_whole


def loop_of(kernel, dtype, here):
    emit = partial(row_kernel(kernel), name="kernel", element=ElementType(dtype, here))
    return inner_loop(assembly("kernel", emit, here))


def has_room(kernel, here):
    """Whether there are registers for all: AVX2 has 16, one of which is the mask of lanes."""
    if here.isa.registers >= 32:
        return True
    sums = kernel.rows * kernel.vectors
    is_masked = kernel.copies and kernel.is_cut
    return sums < 12 or not (is_masked or kernel.vectors == 1)


@pytest.mark.parametrize("cpu", MASKED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_the_inner_loop_keeps_its_sums_in_registers(flags, dtype, cpu):
    here = named_target(cpu)
    for (most, most_vectors), unroll in product(here.isa.gemm_tiles, (1, 2)):
        for rows, vectors in {(most, most_vectors), (1, most_vectors), (most, 1)}:
            kernel = RowKernel(rows, vectors, unroll, *flags, "", residual=False)
            loop = loop_of(kernel, dtype, here)
            products = sum("fma" in line for line in loop)
            assert products == rows * vectors * unroll, kernel
            spilled = [line for line in loop if "sp)" in line]
            assert not (spilled and has_room(kernel, here)), kernel
            assert len(spilled) <= 1.2 * products, kernel


def test_no_two_kernels_share_a_name():
    shapes = [*product((1, 2, 12), (1, 2), (1, 2))]
    ends = [*product(("", "relu"), (False, True))]
    kernels = [
        RowKernel(*shape, *flags, *end) for shape in shapes for flags in FLAGS for end in ends
    ]
    assert len({kernel.name for kernel in kernels}) == len(kernels)
