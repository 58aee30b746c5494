"""Check of the cost model of PyTorch's layers. ``python -m bench.torch_costs``.

It holds the predictions of `tconv.torch.cost_model` against the results in bench/results/ that this
processor has written: `bench.run`'s transposed convolutions, `bench.convolutions`' convolutions.
What counts is the ratio of PyTorch's time to a plan's: by it a module chooses who computes it.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from statistics import geometric_mean, pstdev
from typing import Any, NamedTuple

from bench import cases, convolutions
from bench.report import table
from bench.store import RESULTS, is_measured, newest
from tconv import Geometry
from tconv.engine import expected_us, host_target
from tconv.geometry.geometry import Letter
from tconv.torch.cost_model import layer_us, processor


class Ratio(NamedTuple):
    """How many times as long PyTorch takes as a plan: predicted, and measured."""

    family: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Logarithm of the one over the other."""
        return math.log(self.predicted / self.measured)

    @property
    def is_wrong(self) -> bool:
        """Whether the prediction chooses the slower one."""
        return (self.predicted > 1) != (self.measured > 1)


def ratios() -> Iterator[Ratio]:
    """The layers of float32 that this processor has measured."""
    transposed = {case.name: case for case in [*cases.PUBLISHED, *cases.sampled()]}
    layers = {layer.name: layer for layer in [*convolutions.published(), *convolutions.drawn()]}
    for results, want, known in (
        (_here("layers"), "y", transposed),
        (_here("convolutions"), "x", layers),
    ):
        for part in results:
            if (part.get("want"), part["dtype"]) != (want, "float32"):
                continue
            for row in part["rows"]:
                of, them = known.get(row["case"]), row["contenders"]
                if of is None or any("us" not in them.get(who, {}) for who in ("plan", "torch")):
                    continue
                times = [min(map(min, them[who]["us"])) for who in ("torch", "plan")]
                predicted = _predicted(of, want, part["threads"])
                if predicted is not None:
                    yield Ratio(f"{want}: {row['family']}", predicted, times[0] / times[1])


def _here(suite: str) -> list[dict[str, Any]]:
    """The parts of the newest results of a suite, if they are this processor's."""
    if not is_measured(suite, RESULTS):
        return []
    results = newest(suite)
    is_here = results["target"].partition(":")[0] == host_target().cpu
    return list(results["parts"]) if is_here else []


def _predicted(of: Any, want: Letter, threads: int) -> float | None:
    if want == "y":
        geometry = of.geometry
    else:
        geometry = Geometry.of_conv(of.x_shape, of.weight_shape, **of.keywords)
    us = expected_us(geometry, want, "float32", threads)
    if us is None:
        return None
    read: Letter = "x" if want == "y" else "y"
    shapes = geometry.shape_of(read), geometry.weight_shape, geometry.shape_of(want)
    return layer_us(want == "y", *shapes, of.G, processor(threads)) / us


def summary(found: list[Ratio]) -> list[str]:
    """A row for each family: the mean factor between both ratios, its spread, wrong choices."""
    families = defaultdict[str, list[Ratio]](list)
    for each in found:
        families[each.family].append(each)
        families["all"].append(each)
    rows = []
    for family, of in sorted(families.items()):
        factor = geometric_mean(each.predicted / each.measured for each in of)
        spread = math.exp(pstdev(each.error for each in of))
        wrong = [each for each in of if each.is_wrong]
        # A choice that is wrong by a hair costs a hair.
        loss = max((abs(math.log(each.measured)) for each in wrong), default=0.0)
        rows.append(
            [family, str(len(of)), f"{factor:.2f}", f"{spread:.2f}", str(len(wrong)),
             f"{math.exp(loss):.2f}"]
        )  # fmt: skip
    heads = ["family", "layers", "predicted / measured", "spread", "wrong choices", "worst of them"]
    return table(heads, rows)


def main() -> None:
    """Print the table."""
    found = list(ratios())
    if found:
        print("\n".join(summary(found)))
    else:
        print(f"bench/results/ has no layers of {host_target().cpu}; run python -m bench.run first")


if __name__ == "__main__":
    main()
