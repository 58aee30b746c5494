"""Output of the cell algorithms: rows of y that no tap reaches are bias, whatever the plan."""

import numpy as np
import pytest

from strategies import integer_operands, integers_like
from tconv import definition, engine
from tconv.arrays.activations import as_activation
from tconv.engine import executor
from tconv.engine.choose import all_plans
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import target
from tconv.geometry.geometry import Geometry

SIZES = [  # x, kernel, stride, padding: planes, rows or columns without a tap
    ((7, 9), (1, 1), (4, 3), (0, 0)),
    ((5, 40), (2, 3), (5, 2), (1, 1)),
    ((3, 4, 6), (1, 2, 2), (3, 4, 1), (0, 1, 0)),
    ((4, 33), (3, 1), (2, 17), (0, 0)),
    ((50,), (2,), (7,), (1,)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), SIZES, ids=str)
def test_rows_that_no_tap_reaches_are_activated_bias(size, kernel, stride, padding, dtype):
    geometry = engine._canonical(
        Geometry.of((2, 3, *size), (3, 5, *kernel), stride=stride, padding=padding)
    )
    x, w, _ = (array.astype(dtype) for array in integer_operands(geometry))
    bias, activation = integers_like((5,), dtype, 5), as_activation(("prelu", -2.0))
    wide = [array.astype(np.float64) for array in (x, w, bias)]
    expected = definition.contract(geometry, "y", *wide[:2], bias=wide[2])
    activation.apply(expected)
    problem = Problem(geometry, "y", activation=activation)
    plans = {(p.algorithm, p.panel): p for p in all_plans(problem, dtype, target(), 2)}
    assert {"direct", "im2col"} <= {algorithm for algorithm, _ in plans}
    for chosen in plans.values():
        primitive = executor.Primitive(problem, dtype, target(), chosen)
        found = engine.contract(geometry, "y", x, w, bias=bias, plan=primitive)
        assert np.array_equal(found, expected.astype(dtype))
