"""View of a scene: the lens, the step and the output cell that a page or a picture shows."""

from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral
from typing import Any

from tconv.errors import ParameterError
from tconv.explainer.scene import Scene
from tconv.geometry.arguments import entries_of
from tconv.messages import show

__all__ = ["LENSES", "View", "steps_of"]

LENSES = ("stamp", "collect", "conv", "channels", "picture")
"""Ways to look at a scene, by the names that the page's address has."""


@dataclass(frozen=True)
class View:
    """A lens, the number of its step from 1, and the output cell that is pinned, or None.

    A step of "stamp" is an input cell, a step of another lens an output cell, channel by channel.
    A cell is (row, column), and (row, column, channel) of the lens "channels".

    >>> View.of(Scene.of(), "collect", cell=(0, 2))
    View(lens='collect', step=5, cell=(0, 2))
    """

    lens: str
    step: int
    cell: tuple[int, ...] | None = None

    @classmethod
    def of(cls, scene: Scene, lens: str, step: Any = None, cell: Any = None) -> "View":
        """Check a lens, a step and a cell of a scene; without a step, take the page's first."""
        _check_lens(lens)
        steps = steps_of(scene, lens)
        if step is None:
            step = steps if lens == "stamp" else scene.middle + 1
        if not isinstance(step, Integral) or isinstance(step, bool) or not 1 <= int(step) <= steps:
            what = "input cells" if lens == "stamp" else "output cells"
            raise ParameterError(
                f"step={show(step)} must be a whole number from 1 to {steps}: the lens "
                f"{lens!r} goes through the {what}; choose one of them."
            )
        return cls(lens, int(step), None if cell is None else _checked_cell(scene, lens, cell))

    def state(self) -> dict[str, Any]:
        """Return the keys of the page's state."""
        return {"lens": self.lens, "step": self.step, "sel": self.selection}

    @property
    def selection(self) -> str:
        """The pinned cell as the page's address names it."""
        return "" if self.cell is None else "o" + ",".join(map(str, self.cell))

    def output(self, scene: Scene) -> tuple[int, int]:
        """Return flat index and channel of the output cell that is shown.

        It is the pinned one, or that of the step.
        """
        columns = scene.axes[1].output
        size = scene.axes[0].output * columns
        if self.cell is not None:
            row, column, channel = (*self.cell, 0)[:3]
            return row * columns + column, channel
        channel, o = divmod(self.step - 1, size)
        return o, channel


def steps_of(scene: Scene, lens: str) -> int:
    """Return how many steps a lens has.

    >>> steps_of(Scene.of(), "stamp"), steps_of(Scene.of(), "channels")
    (4, 18)
    """
    first, second = scene.axes
    if lens == "stamp":
        return first.input * second.input
    return first.output * second.output * (scene.channels[1] if lens == "channels" else 1)


def _check_lens(lens: Any) -> None:
    if lens not in LENSES:
        close = get_close_matches(str(lens), LENSES, 1)
        fix = f"did you mean {close[0]!r}?" if close else "pass one of these."
        raise ParameterError(f"lens={show(lens)} must be one of {', '.join(LENSES)}; {fix}")


def _checked_cell(scene: Scene, lens: str, cell: Any) -> tuple[int, ...]:
    many = lens == "channels"
    entries = entries_of(cell)
    places = (cell,) if entries is None else tuple(entries)
    if scene.rank == 1 and len(places) == 1 + many:
        places = (0, *places)
    if many and len(places) == 2:
        places = (*places, 0)
    sizes = [axis.output for axis in scene.axes] + [scene.channels[1]] * many
    names = ("row", "column", "channel")[: len(sizes)]
    good = len(places) == len(sizes) and all(
        isinstance(n, Integral) and 0 <= int(n) < size
        for n, size in zip(places, sizes, strict=False)
    )
    if not good:
        ranges = ", ".join(
            f"{name} 0 to {size - 1}" for name, size in zip(names, sizes, strict=True)
        )
        raise ParameterError(f"cell={show(cell)} must be an output cell: {ranges}; choose one.")
    return tuple(map(int, places))
