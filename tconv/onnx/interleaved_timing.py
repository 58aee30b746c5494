"""Interleaved timings of two contenders, and which of them is faster.

A loaded machine slows both, but not each run alike: a thread that waits for another to be scheduled
makes a quick node look slow. The fastest run of a node is one in which nobody waited. Who is
faster is told only where every turn says so.
"""

from collections.abc import Callable, Sequence
from statistics import median

__all__ = ["Turns"]

_LEAST_APART = 0.03  # of the time; less than that is not told apart


class Turns:
    """Milliseconds of each run, turn by turn.

    >>> ours, theirs = Turns([[1.0, 9.0], [1.1]]), Turns([[2.0], [1.0, 3.0]])
    >>> ours.fastest, theirs.middle
    (1.0, 2.0)
    >>> ours.faster_than(theirs, min) is None  # the two turns disagree
    True
    """

    def __init__(self, turns: Sequence[Sequence[float]]) -> None:
        self.turns = [list(turn) for turn in turns if len(turn)]

    def __len__(self) -> int:
        return sum(map(len, self.turns))

    @property
    def fastest(self) -> float | None:
        """The fastest run of all; None where there is none."""
        return min(map(min, self.turns), default=None)

    @property
    def middle(self) -> float | None:
        """The median of the turns' medians; None where there is none."""
        return median(map(median, self.turns)) if self.turns else None

    def faster_than(
        self, others: "Turns", of_turn: Callable[[Sequence[float]], float]
    ) -> bool | None:
        """Whether these are faster than the others; None where the turns do not agree.

        `of_turn` is min if the fastest runs are compared, median if the middle ones are.

        >>> Turns([[1.0], [1.1]]).faster_than(Turns([[2.0], [1.2]]), median)
        True
        >>> Turns([[1.0], [1.0]]).faster_than(Turns([[1.01], [1.02]]), min) is None  # too close
        True
        """
        pairs = [(of_turn(a), of_turn(b)) for a, b in zip(self.turns, others.turns, strict=False)]
        if pairs and all(a < b * (1 - _LEAST_APART) for a, b in pairs):
            return True
        if pairs and all(b < a * (1 - _LEAST_APART) for a, b in pairs):
            return False
        return None
