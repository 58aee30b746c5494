"""Run random plans for w on operands that end where memory does; a stray access ends this.

python tests/engine/guarded_correlator.py PLANS
"""

import sys

import numpy as np
from guarded import draw, guarded

from tconv.engine.chunks import Chunk
from tconv.engine.correlation import all_correlations
from tconv.engine.correlator import Correlated
from tconv.engine.problem import Problem
from tconv.engine.target import target


def main(count):
    rng, kinds = np.random.default_rng(0), {True: 0, False: 0}
    for n in range(count):
        if n % 4 == 0:  # for each geometry four plans
            geometry, dtype = draw(rng), ("float32", "float64")[n // 4 % 2]
            problem = Problem(geometry, "x")
            plans = all_correlations(problem, dtype, target())
        plan = plans[int(rng.integers(len(plans)))]
        if n % 2:
            cells = int(rng.integers(1, 30))
            plan = plan._replace(chunk=Chunk.of(geometry.batch, problem.written_size, cells))
        ready = Correlated(problem, dtype, target(), plan._replace(segments=1), 1 + n % 3)
        x, y = (
            guarded(rng.standard_normal(shape).astype(dtype), n % 3)
            for shape in (geometry.x_shape, geometry.y_shape)
        )
        dw = guarded(np.full(geometry.weight_shape, np.nan, dtype), n % 3)
        ready(x, y, dw)
        assert np.isfinite(dw).all()
        kinds[plan.is_dot] += 1
    assert min(kinds.values()) > 0, kinds
    print(count, "plans")


if __name__ == "__main__":
    main(int(sys.argv[1]))
