"""Cells of a row of x that vectors of outputs read, straight from x.

    cells[offset][v] = x[(v*lanes + lane)*step + offset]        # for every lane

Neighbouring offsets share what is loaded. Where the row ends, masks let the lanes beyond read
zeros.
"""

from typing import NamedTuple

from tconv.engine.codegen.code import Code
from tconv.engine.codegen.llvm import Value
from tconv.engine.kernels.transpose import pick_lanes

__all__ = ["RowCells"]


class RowCells(NamedTuple):
    """What vectors of neighbouring outputs read: offsets in ascending order, and the step.

    >>> RowCells(offsets=(-1, 0, 1), step=2, vectors=1).loads(lanes=16)
    [-1, 1, 15, 17]
    """

    offsets: tuple[int, ...]
    step: int
    vectors: int

    def loads(self, lanes: int) -> list[int]:
        """Cells at which loads begin, from that of the first output on."""
        found = {
            place
            for offset in self.offsets
            for v in range(self.vectors)
            for place in self._places(offset, v, lanes)
        }
        return sorted(found)

    def _places(self, offset: int, v: int, lanes: int) -> list[int]:
        """The loads that hold the cells of a vector at an offset."""
        first = self._first(offset)
        return [first + (v * self.step + n) * lanes for n in range(self.step)]

    def _first(self, offset: int) -> int:
        """The first of the offsets whose cells are loaded together with those at an offset."""
        first = self.offsets[0]
        for each in self.offsets:
            if each >= first + self.step:
                first = each
            if each == offset:
                break
        return first

    def is_inner(self, code: Code, start: Value, room: Value) -> Value:
        """Whether every load stays in the row: `room` cells of it are left from `start` on."""
        loads = self.loads(code.element.lanes)
        return code.both(
            code.is_less(-1, code.add(start, loads[0])),
            code.is_less(loads[-1] + code.element.lanes - 1, room),
        )

    def masks(self, code: Code, start: Value, room: Value) -> dict[int, Value]:
        """For each load the lanes that are in the row."""
        found = {}
        for first in self.loads(code.element.lanes):
            found[first] = code.first_lanes(code.sub(room, first))
            if first < 0:
                inside = code.lanes_from(code.sub(-first, start))
                found[first] = code.both(found[first], inside)
        return found

    def vectors_at(
        self, code: Code, source: Value, masks: dict[int, Value]
    ) -> dict[int, list[Value]]:
        """The vectors of cells at each offset; without masks all cells exist."""
        lanes, loaded = code.element.lanes, dict[int, Value]()
        found: dict[int, list[Value]] = {offset: [] for offset in self.offsets}
        for offset, vectors in found.items():
            skipped = offset - self._first(offset)
            order = [skipped + lane * self.step for lane in range(lanes)]
            for v in range(self.vectors):
                places = self._places(offset, v, lanes)
                for place in places:
                    if place not in loaded:
                        loaded[place] = _load(code, source, place, masks.get(place))
                some = [loaded[place] for place in places]
                vectors.append(some[0] if self.step == 1 else pick_lanes(code, some, order))
        return found


def _load(code: Code, source: Value, place: int, mask: Value | None) -> Value:
    if mask is None:
        return code.load_vector(source, place)
    return code.load_lanes(code.at(source, place), mask)
