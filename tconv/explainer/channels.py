"""Facts of several channels: the parts of each output channel, by input channel, and their sums.

Part c of y[m] is the transposed convolution of x[c] by w[c, m]. Each part is summed as `stamped`
does, and the parts are added in the order of c; the page's script does the same.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.explainer.facts import facts_of, signed, stamped
from tconv.explainer.scene import Rows, Scene, number_text, plain_rows

__all__ = ["channel_equation", "channel_facts"]


def channel_facts(scene: Scene) -> dict[str, Any]:
    """Return x[c], w[c][m], parts[m][c] and y[m], and the sum of each cell of y as text.

    >>> facts = channel_facts(Scene.of())
    >>> facts["y"][0], facts["parts"][0][1]
    ([[38, 126, 100], [186, 525, 353], [216, 515, 301]], [[1, 5, 6], [8, 25, 11], [15, 16, -7]])
    >>> facts["equations"][0][1]
    'y[0,0,1] = (2·37 + 1·47) + (2·1 + 1·3) = 121 + 5 = 126'
    """
    x, w = scene.channel_x, scene.channel_w
    ins, outs = len(x), len(w[0])
    parts = [[_part(scene, x[c], w[c][m]) for c in range(ins)] for m in range(outs)]
    with np.errstate(over="ignore", invalid="ignore"):
        y = [sum(others, first) for first, *others in parts]
    facts: dict[str, Any] = {
        "x": list(map(plain_rows, x)),
        "w": [list(map(plain_rows, of_c)) for of_c in w],
        "parts": [[plain_rows(part.tolist()) for part in of_m] for of_m in parts],
        "y": [plain_rows(each.tolist()) for each in y],
    }
    cells = [range(each.size) for each in y]
    facts["equations"] = [
        [channel_equation(scene, facts, m, o) for o in of_m] for m, of_m in enumerate(cells)
    ]
    return facts


def _part(scene: Scene, x: Rows, w: Rows) -> NDArray[np.float64]:
    canvas = stamped(replace(scene, x=x, w=w))
    return canvas[tuple(slice(axis.begin, axis.begin + axis.output) for axis in scene.axes)]


def channel_equation(
    scene: Scene, facts: dict[str, Any], m: int, o: int, write: Any = number_text
) -> str:
    """Write the sum of a cell of y[m], channel by channel; a function writes its numbers."""
    r, k = divmod(o, scene.axes[1].output)
    name, equals = f"y[{m},{r},{k}]", " = " if write is number_text else " ≈ "
    pairs = facts_of(scene)["contributions"][o]
    if not pairs:
        return f"{name} = 0, as no tap reaches this cell"

    def text(value: float) -> str:
        return signed(write(float(value)))

    groups = []
    for x, of_c in zip(scene.channel_x, scene.channel_w, strict=True):
        values, taps = np.ravel(x), np.ravel(of_c[m])
        groups.append(" + ".join(f"{text(taps[t])}·{text(values[i])}" for i, t in pairs))
    value = write(float(facts["y"][m][r][k]))
    if len(groups) == 1:
        return f"{name}{equals}{groups[0]}{equals}{value}"
    parts = " + ".join(text(part[r][k]) for part in facts["parts"][m])
    return f"{name}{equals}{' + '.join(f'({g})' for g in groups)}{equals}{parts}{equals}{value}"
