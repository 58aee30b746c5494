"""Lengths of runs: any number of cells as runs of few lengths, by what they are expected to cost.

A run may have more cells than there are: what is computed of the others is dropped. So lengths are
powers of two, and a push of 7 cells is one run of 8 rather than three of 4, 2 and 1.
"""

from functools import lru_cache

__all__ = ["RunLengths"]

_MOST_LENGTHS = 8
_LEAST_MOST, _SHARE = 128, 20.0  # periods of the longest run; its time over what is fixed
_MOST_BYTES = 4 * 2**20  # of the largest value of a run
_BYTES_PER_US, _FLOPS_PER_US = 40_000.0, 60_000.0  # of weights that are read; by a thread
_NODE_US, _RUN_US = 0.5, 50.0


class RunLengths:
    """How a number of cells is cut into runs.

    Parameters
    ----------
    period : cells that all lengths are multiples of
    most : cells of the longest run, rounded to a power of two of periods
    fixed, per_cell : what a run is expected to cost, and each of its cells, in the same unit

    >>> RunLengths(1, 64, fixed=3.0, per_cell=1.0).cut(150), RunLengths(1, 64, 3.0, 1.0).cut(7)
    ([64, 64, 16, 8], [8])
    """

    def __init__(self, period: int, most: int, fixed: float, per_cell: float) -> None:
        self.period, self._fixed, self._per_cell = period, fixed, per_cell * period
        self._top = 1 << max(most // period, 1).bit_length() - 1
        self._least = max(self._top >> _MOST_LENGTHS - 1, 1)
        self._few = lru_cache(maxsize=1024)(self._cut)

    @classmethod
    def expected(
        cls, period: int, cell_bytes: float, weight_bytes: int, nodes: int, flops: float
    ) -> "RunLengths":
        """Lengths of runs by what they are expected to cost.

        Parameters
        ----------
        cell_bytes, flops : of the largest value, and of a thread, for each cell of input
        weight_bytes, nodes : that each run reads, and computes
        """
        fixed = _RUN_US + weight_bytes / _BYTES_PER_US + _NODE_US * nodes
        per_cell = flops / _FLOPS_PER_US
        # Long enough that what does not depend on the length is little of the longest run.
        least = float(_LEAST_MOST * period)
        wanted = max(least, _SHARE * fixed / max(per_cell, 1e-9))
        most = int(min(wanted, max(_MOST_BYTES / cell_bytes, least)))
        return cls(period, most, fixed, per_cell)

    @property
    def all(self) -> list[int]:
        """Every length that a run may have, from the shortest."""
        found, length = list[int](), self._least
        while length <= self._top:
            found.append(length * self.period)
            length *= 2
        return found

    def cut(self, count: int) -> list[int]:
        """Lengths of runs for so many cells; they sum to that or more."""
        periods = -(-count // self.period)
        many, rest = divmod(periods, self._top)
        _, few = self._few(rest)
        return [each * self.period for each in (*[self._top] * many, *few)]

    def _cut(self, periods: int) -> tuple[float, tuple[int, ...]]:
        if periods == 0:
            return 0.0, ()
        over = max(1 << (periods - 1).bit_length(), self._least)
        one = self._cost(over), (over,)
        under = over >> 1
        if under < self._least or under >= periods:
            return one
        cost, rest = self._few(periods - under)
        return min(one, (self._cost(under) + cost, (under, *rest)))

    def _cost(self, periods: int) -> float:
        return self._fixed + self._per_cell * periods
