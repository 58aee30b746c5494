"""Rows of instruction sets: plans, kernels and results follow from the row alone."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from assemblies import TARGETS
from processes import run_script

from tconv.engine.choose import choose_plan
from tconv.engine.codegen.code import ElementType, write
from tconv.engine.compile.jit import _entry_of, assembly
from tconv.engine.kernels.transpose import run_transpose
from tconv.engine.layouts import layout_of
from tconv.engine.lowering import Lowering
from tconv.engine.plan.problem import Problem
from tconv.engine.runtime import reorder
from tconv.engine.target.isa import INSTRUCTION_SETS
from tconv.engine.target.target import architecture_row, named_target, target, target_of
from tconv.engine.weight_gradient.executor import WeightGradientPrimitive
from tconv.engine.weight_gradient.plan import choose_gradient_plan
from tconv.geometry.geometry import Geometry

GEOMETRY = Geometry.of((2, 24, 6, 7), (24, 16, 4, 4), stride=2, padding=1)
each_row = pytest.mark.parametrize("row", INSTRUCTION_SETS, ids=lambda row: row.name)


def target_with(row):
    """A target with a row and its features; the row of "" stands for any architecture."""
    triple = f"{row.architecture.name or 'riscv64'}-unknown-linux-gnu"
    return replace(target_of(triple, "", dict.fromkeys(row.features, True)), isa=row)


def kernels_of(want, dtype, here, monkeypatch):
    """What emits each kernel of the chosen plan, by name."""
    problem, found = Problem(GEOMETRY, "x" if want == "w" else want), {}
    if want != "w":
        plan = choose_plan(problem, dtype, here, 2)
        return Lowering(layout_of(problem, plan, np.dtype(dtype), here)).emits

    def emitted(name, emit, *, dtype, target):
        found[f"{name}_{dtype}"] = partial(write, emit, f"{name}_{dtype}", dtype, target)
        return len(found)

    monkeypatch.setattr(reorder, "load_kernel", emitted)
    WeightGradientPrimitive(problem, dtype, here, choose_gradient_plan(problem, dtype, here), 2)
    return found


@each_row
@pytest.mark.parametrize(
    ("want", "dtype"),
    [
        ("y", "float16"),
        ("y", "float32"),
        ("y", "float64"),
        ("x", "float32"),
        ("w", "float32"),
        ("w", "float64"),
    ],
)
def test_every_row_has_plans_and_kernels(row, want, dtype, monkeypatch):
    here = target_with(row)
    emits = kernels_of(want, dtype, here, monkeypatch)
    assert emits
    for name, emit in emits.items():
        assert name in assembly(name, emit, here), name


@each_row
def test_sums_and_operands_of_a_tile_fit_the_registers(row):
    for tiles in (row.gemm_tiles, row.rank1_tiles, row.dot_tiles):
        assert len({*tiles}) == len(tiles) > 0
        for rows, columns in tiles:
            assert rows * columns + min(rows, columns) < row.registers
    assert {vectors for _, vectors in row.gemm_tiles} >= {1, 2}  # for narrow tasks, too


def test_tests_read_the_assembly_of_the_tiles_of_every_row():
    read = {named_target(cpu).isa._replace(name="") for cpu in TARGETS}
    assert read == {row._replace(name="") for row in INSTRUCTION_SETS if row.architecture.name}


def test_every_row_has_a_name_of_its_own_and_the_last_fits_every_machine():
    names = [row.name for row in INSTRUCTION_SETS]
    assert len({*names}) == len(names)
    assert (INSTRUCTION_SETS[-1].architecture.name, INSTRUCTION_SETS[-1].features) == ("", ())
    for row in INSTRUCTION_SETS:  # keys on disk have its text, which must not depend on the process
        assert not any(isinstance(value, set | frozenset) for value in row)


def test_kernels_on_disk_tell_rows_apart():
    here, row = named_target("haswell"), named_target("haswell").isa
    for change in ({"has_gather": True}, {"gemm_tiles": ((6, 2),)}, {"registers": 32}):
        other = replace(here, isa=row._replace(**change))
        assert other != here
        assert _entry_of("kernel", other) != _entry_of("kernel", here)


@pytest.mark.parametrize(
    "triple", ["x86_64-unknown-linux-gnu", "x86_64h-apple-darwin23", "amd64-unknown-freebsd14"]
)
def test_non_temporal_stores_are_fenced_under_every_name_of_an_architecture(triple):
    here = target_of(triple, "", {"avx2": True, "fma": True})
    emit = partial(run_transpose, name="kernel", element=ElementType("float32", here))
    assert "sfence" in assembly("kernel", emit, here)
    assert architecture_row(triple).pause


def test_a_row_of_another_name_computes_what_the_definition_does():
    """All that is known of an instruction set stands in its row: one that copies it will do."""
    run_script(ANOTHER_NAME, target().isa.name, timeout=300)


ANOTHER_NAME = """
import sys
import numpy as np
from tconv.engine.target import isa
row = next(row for row in isa.INSTRUCTION_SETS if row.name == sys.argv[1])
isa.INSTRUCTION_SETS = (row._replace(name="another"), *isa.INSTRUCTION_SETS)
from tconv import definition, engine
from tconv.engine.target.target import target
from tconv.geometry.geometry import Geometry
assert target().isa.name == "another", target()
rng = np.random.default_rng(0)
sizes_of = ((2, 24, 6, 7), (24, 16, 4, 4)), ((3, 64, 4, 4), (64, 32, 3, 3)), ((1, 2, 50), (2, 3, 5))
for sizes in sizes_of:
    for stride in (1, 2):
        geometry = Geometry.of(*sizes, stride=stride, padding=1)
        letters = {"x": geometry.x_shape, "w": geometry.weight_shape, "y": geometry.y_shape}
        arrays = {letter: rng.integers(-4, 5, shape) for letter, shape in letters.items()}
        for dtype in ("float32", "float64", "float16"):
            for want, reads in (("y", "xw"), ("x", "yw"), ("w", "xy")):
                if dtype == "float16" and want == "w":
                    continue  # the engine has no kernels for it
                assert engine.serves(geometry, want, dtype), (want, dtype)
                given = [arrays[letter].astype(dtype) for letter in reads]
                found = engine.contract(geometry, want, *given, threads=2)
                wide = [each.astype(float) for each in given]
                assert np.array_equal(found, definition.contract(geometry, want, *wide)), want
"""
