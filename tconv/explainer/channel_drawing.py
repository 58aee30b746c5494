"""Layout of a picture of several channels: parts through w[c, m], and the sums of parts."""

from collections.abc import Iterator
from typing import Any

from tconv.explainer.channels import channel_equation, channel_facts
from tconv.explainer.drawing import (
    Cell,
    Figure,
    Panel,
    Shape,
    brief,
    figure_of,
    in_rows,
    sentence_of,
    side_of,
)
from tconv.explainer.facts import facts_of
from tconv.explainer.scene import Scene

__all__ = ["draw_channels"]

_MARGIN, _COLUMN_GAP, _ROW_GAP = 16, 26, 14


def draw_channels(scene: Scene, o: int, m: int) -> Figure:
    """Lay out all channels, with the terms of cell o of output channel m highlighted.

    >>> draw_channels(Scene.of(), 1, 0).description
    'y[0,0,1] = (2·37 + 1·47) + (2·1 + 1·3) = 121 + 5 = 126'
    """
    facts, channels = facts_of(scene), channel_facts(scene)
    panels = dict(_panels(facts, channels, o, m))
    last_row, last_column = (max(place[n] for place in panels) for n in (0, 1))
    # Panels measure themselves while they are drawn; these shapes are thrown away.
    sizes = {place: panel.add_to([], 0, 0) for place, panel in panels.items()}
    shapes: list[Shape] = []
    x = _MARGIN
    bottom = 0
    for column in range(last_column + 1):
        y = _MARGIN
        for row in range(last_row + 1):
            if (row, column) in panels:
                panels[row, column].add_to(shapes, x, y)
            y += max(sizes[at][1] for at in sizes if at[0] == row) + _ROW_GAP
        bottom = y - _ROW_GAP
        x += max(sizes[at][0] for at in sizes if at[1] == column) + _COLUMN_GAP

    def tell(write: Any) -> str:
        return channel_equation(scene, channels, m, o, write)

    return figure_of(shapes, x - _COLUMN_GAP + _MARGIN, bottom, sentence_of(tell), facts)


def _panels(
    facts: dict[str, Any], channels: dict[str, Any], o: int, m: int
) -> Iterator[tuple[tuple[int, int], Panel]]:
    """Yield the panels by row and column, as the page places them."""
    pairs = dict(facts["contributions"][o])
    taps = {k: k for k in pairs.values()}
    outputs = len(channels["y"])

    def panel(
        heading: str, rows: Any, lit: dict[int, int | None], *, kernel: bool = False
    ) -> Panel:
        side = side_of(len(rows), len(rows[0]), 150)
        flat = [value for row in rows for value in row]
        cells = [
            Cell(brief(value, side), n if kernel else lit.get(n), True, n in lit)
            for n, value in enumerate(flat)
        ]
        return Panel(heading, in_rows(cells, len(rows[0])), side)

    for c, x in enumerate(channels["x"]):
        yield (c, 0), panel(f"x[{c}]", x, pairs)
        for n, w in enumerate(channels["w"][c]):
            yield (c, 1 + n), panel(f"w[{c},{n}]", w, taps if n == m else {}, kernel=True)
        heading = f"{'+ ' if c else ''}part {c} of y[{m}]"
        yield (c, 1 + outputs), panel(heading, channels["parts"][m][c], {o: None})
    for n, y in enumerate(channels["y"]):
        yield (
            (n, 2 + outputs),
            panel(f"{'= ' if n == m else ''}y[{n}]", y, {o: None} if n == m else {}),
        )
