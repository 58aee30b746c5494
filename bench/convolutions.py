"""Convolutions by tconv, PyTorch and ONNX Runtime. ``python -m bench.convolutions``.

`tconv.plan(want="x")` with packed weights, and `tconv.conv`, which packs them each time, beside
PyTorch's function and ONNX Runtime's node. Layers come from real networks (`conv_shapes.csv`), and
from random draws of the classes that these have few of. Where a layer's result is as large as its
input, three such layers in a row are measured as well: inside a model ONNX Runtime keeps channels
in blocks from one node to the next.
"""

import argparse
import csv
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from math import prod
from pathlib import Path
from random import Random
from statistics import geometric_mean, median
from typing import Any, NamedTuple

import numpy as np

from bench.machine import cores
from bench.peers import SEED, Operands, Thunk, as_tensor, session
from bench.report import CAPS, milliseconds, ratio, seconds, show, table, threads_of, where
from bench.rounds import Limits, take_turns
from bench.run import facts
from bench.server import Contender
from bench.store import Line, finish, parsed

SHAPES = Path(__file__).parent / "conv_shapes.csv"
CHAIN = 3  # layers in a row
SHORT_S = 50e-6  # a layer that the faster peer computes in less counts apart
LOSS = 0.98  # a lower ratio is a loss
CAP = CAPS["float32"]
DRAWN_SEED, DRAWN = 20261130, 8  # layers of each class; never changed since a result was seen

Row = dict[str, Any]


class Layer(NamedTuple):
    """A convolution: sizes as in shapes, then what each axis has; of pads the beginnings first."""

    name: str
    N: int
    C: int
    M: int
    I: tuple[int, ...]
    K: tuple[int, ...]
    s: tuple[int, ...]
    pads: tuple[int, ...]
    d: tuple[int, ...]
    G: int

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.I)

    @property
    def O(self) -> tuple[int, ...]:  # noqa: E743
        """Spatial size of the result."""
        begins, ends = self.pads[: self.rank], self.pads[self.rank :]
        axes = zip(self.I, self.K, self.s, self.d, begins, ends, strict=True)
        return tuple((i + b + e - d * (k - 1) - 1) // s + 1 for i, k, s, d, b, e in axes)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the input."""
        return (self.N, self.C, *self.I)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return (self.N, self.M, *self.O)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return (self.M, self.C // self.G, *self.K)

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.y_cells * prod(self.weight_shape[1:])

    @property
    def y_cells(self) -> int:
        """Elements of the result."""
        return prod(self.y_shape)

    @property
    def keywords(self) -> dict[str, Any]:
        """The keywords of `tconv.conv`."""
        pairs = tuple(zip(self.pads[: self.rank], self.pads[self.rank :], strict=True))
        return {"stride": self.s, "padding": pairs, "dilation": self.d, "groups": self.G}

    @property
    def chains(self) -> bool:
        """Whether the result can be the input of the same layer."""
        return self.x_shape == self.y_shape and self.G in (1, self.C)

    @property
    def family(self) -> str:
        """The class of layers that it counts in."""
        taps, is_1d = prod(self.K), self.rank == 1
        if self.G == self.C and self.G > 1:
            return "depthwise"
        if taps == 1:
            return "1x1"
        if self.C // self.G <= 4:
            return "first layers"
        if self.rank == 3:
            return "3-D k3"
        if is_1d:
            return "1-D k5 to k11" if max(self.K) >= 5 else "1-D k3"
        if max(self.s) > 1:
            return "2-D k3 s2" if self.K == (3, 3) else "other"
        return "2-D k3 s1" if self.K == (3, 3) else "other"

    def __str__(self) -> str:
        sizes = ("×".join(map(str, each)) for each in (self.I, self.K))
        text = "{}×{}→{}, {}, k{}".format(self.N, self.C, self.M, *sizes)
        for letter, values in (("s", self.s), ("d", self.d)):
            text += f" {letter}{'×'.join(map(str, values))}" if max(values) > 1 else ""
        return text + (f" g{self.G}" if self.G > 1 else "")


def as_layer(values: Sequence[Any]) -> Layer:
    """Return a layer that went through JSON."""
    return Layer(*(tuple(each) if isinstance(each, list) else each for each in values))


# ---- layers --------------------------------------------------------------------------------------


def published() -> list[Layer]:
    """The layers of real networks."""
    with SHAPES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(map(int, text.split("x")))

    return [
        Layer(
            f"{row['model']}-{n}", *(int(row[name]) for name in "NCM"), numbers(row["spatial"]),
            *(numbers(row[name]) for name in ("k", "s", "pads", "d")), int(row["g"]),
        )
        for n, row in enumerate(rows, 1)
    ]  # fmt: skip


def drawn() -> list[Layer]:
    """Layers of the classes that the published ones have few of, drawn at random."""
    rng = Random(DRAWN_SEED)

    def between(low: int, high: int) -> int:
        return int(low * ((high + 1) / low) ** rng.random())

    def of(kind: str, n: int) -> Layer:
        channels, more = 8 * between(2, 40), 8 * between(2, 40)
        rank, kernel, stride, dilation, groups = 2, 3, 1, 1, 1
        side = between(12, 120)
        if kind == "k3s2":
            stride = 2
        elif kind == "first":
            channels, kernel, stride = between(1, 4), 3 + 2 * int(5 * rng.random()), between(2, 4)
            side = between(64, 256)
        elif kind == "depthwise":
            kernel, stride = 3 + 2 * int(2 * rng.random()), between(1, 2)
            groups = more = channels
        elif kind == "audio":
            rank, kernel, dilation = 1, 5 + 2 * int(4 * rng.random()), between(1, 5)
            side = between(500, 8000)
        elif kind == "3d":
            rank, side = 3, between(8, 33)
        else:
            kernel, stride = 1, between(1, 2)
        pad = dilation * (kernel - 1) // 2
        axes = ((side,) * rank, (kernel,) * rank, (stride,) * rank, (pad,) * 2 * rank)
        return Layer(f"{kind}-{n}", 1, channels, more, *axes, (dilation,) * rank, groups)

    kinds = ("1x1", "k3s2", "first", "depthwise", "audio", "3d")
    return [of(kind, n) for kind in kinds for n in range(1, DRAWN + 1)]


# ---- contenders ----------------------------------------------------------------------------------


def operands_of(layer: Layer, seed: int = SEED) -> Operands:
    """Input, weight and bias, the same in every process."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(layer.x_shape, np.float32)
    weight = rng.standard_normal(layer.weight_shape, np.float32)
    weight /= np.float32(np.sqrt(prod(layer.weight_shape[1:])))
    return x, weight, rng.standard_normal(layer.M, np.float32)


def portable(layer: Layer, arrays: Operands, threads: int) -> Thunk:
    """The reference, in float64."""
    from tconv import Geometry
    from tconv.portable.contract import contract

    x, weight, bias = (each.astype(np.float64) for each in arrays)
    geometry = Geometry.of_conv(layer.x_shape, layer.weight_shape, **layer.keywords)
    return lambda: contract(geometry, "x", x, weight, bias=bias)


def plan(layer: Layer, arrays: Operands, threads: int) -> Thunk:
    """`tconv.plan` with packed weights, writing to the same result each time."""
    x, _, bias = arrays
    call, packed = _planned(layer, arrays, threads)
    y = np.empty(layer.y_shape, x.dtype)
    return lambda: call(x, packed, bias, y)


def plan_chain(layer: Layer, arrays: Operands, threads: int) -> Thunk:
    """Three calls of one plan, each reading what the last one wrote."""
    x, _, bias = arrays
    call, packed = _planned(layer, arrays, threads)
    places = [np.empty(layer.y_shape, x.dtype) for _ in range(CHAIN)]

    def run() -> np.ndarray:
        given = x
        for place in places:
            given = call(given, packed, bias, place)
        return given

    return run


def _planned(layer: Layer, arrays: Operands, threads: int) -> tuple[Any, Any]:
    import tconv
    from tconv import Geometry

    made = Geometry.of_conv(layer.x_shape, layer.weight_shape, **layer.keywords)
    call = tconv.plan(
        made.x_shape, layer.weight_shape, want="x", output_size=layer.I, threads=threads,
        **layer.keywords,
    )  # fmt: skip
    return call, call.pack(arrays[1])


def functional(layer: Layer, arrays: Operands, threads: int) -> Thunk:
    """`tconv.conv`, which packs weights and allocates its result each time."""
    import tconv

    return lambda: tconv.conv(*arrays, threads=threads, **layer.keywords)


def torch(layer: Layer, arrays: Operands, threads: int) -> Thunk:
    """`torch.nn.functional.conv*d` on the CPU, without autograd."""
    import torch as library

    library.set_num_threads(threads)
    library.set_grad_enabled(False)
    x, weight, bias = map(as_tensor, arrays)
    function = getattr(library.nn.functional, f"conv{layer.rank}d")
    begins, ends = layer.pads[: layer.rank], layer.pads[layer.rank :]
    options = {"stride": layer.s, "dilation": layer.d, "groups": layer.G}
    if begins == ends:
        return lambda: function(x, weight, bias, padding=begins, **options)
    pairs = [n for pair in zip(begins[::-1], ends[::-1], strict=True) for n in pair]
    pad = library.nn.functional.pad
    return lambda: function(pad(x, pairs), weight, bias, **options)


def onnx(layer: Layer, arrays: Operands, threads: int, count: int = 1) -> Thunk:
    """ONNX Runtime's node alone, or several in a row."""
    from onnx import helper

    x, weight, bias = arrays
    names = ["x", *(f"t{n}" for n in range(1, count)), "y"]
    nodes = [
        helper.make_node(
            "Conv", [names[n], "w", "b"], [names[n + 1]], strides=layer.s, pads=layer.pads,
            dilations=layer.d, group=layer.G,
        )
        for n in range(count)
    ]  # fmt: skip
    made = session(nodes, {"w": weight, "b": bias}, x.shape, layer.y_shape, threads)
    feeds = {"x": x}
    return lambda: made.run(None, feeds)[0]


def onnx_chain(layer: Layer, arrays: Operands, threads: int) -> Thunk:
    """Three nodes in a row."""
    return onnx(layer, arrays, threads, CHAIN)


ALONE = ("plan", "functional", "torch", "onnx")
IN_ROWS = ("plan_chain", "onnx_chain")
PEERS = ("torch", "onnx")


# ---- measuring -----------------------------------------------------------------------------------


def measure_layers(layers: Sequence[Layer], threads: int, rounds: int, chains: bool) -> list[Row]:
    """Measure layers; a record each, in the form of a case."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        cache = str(Path(name) / "cache")

        def of(each: str) -> Contender:
            return Contender(each, f"bench.convolutions:{each}", threads, cache)

        contenders, referee = {each: of(each) for each in (*ALONE, *IN_ROWS)}, of("portable")
        limits = Limits(rounds, slice_s=0.03, case_cap_s=1.5)
        for number, layer in enumerate(layers, 1):
            print(f"{number} of {len(layers)}: {layer.name} {layer}", file=sys.stderr, flush=True)
            path = Path(name) / f"reference-{number}"
            referee.ask("refer_convolution", layer=layer, path=str(path))
            order = {"layer": layer, "threads": threads, "reference": str(path)}
            some = [contenders[each] for each in ALONE]
            found, others = take_turns(some, "prepare_convolution", order, limits)
            if chains and layer.chains:
                some = [contenders[each] for each in IN_ROWS]
                order |= {"count": CHAIN, "reference": str(Path(name) / f"chain-{number}")}
                referee.ask("refer_convolution", layer=layer, path=order["reference"], count=CHAIN)
                in_rows, _ = take_turns(some, "prepare_convolution", order, limits)
                found |= in_rows
            rows.append(
                {
                    "case": layer.name, "sizes": str(layer), "family": layer.family,
                    "flops": layer.flops, "others": others, "contenders": found,
                }
            )  # fmt: skip
        for each in (*contenders.values(), referee):
            each.close()
    return rows


# ---- the tables ----------------------------------------------------------------------------------


def best_peer(row: Row, statistic: Callable[..., float] = min) -> float | None:
    """Seconds of the faster peer."""
    times = [time for name in PEERS if (time := seconds(row, name, statistic)) is not None]
    return min(times, default=None)


def ratio_to_best(row: Row, ours: str, statistic: Callable[..., float] = min) -> float | None:
    """The time of the faster peer over that of one of tconv's; None where one of them failed."""
    theirs, own = best_peer(row, statistic), seconds(row, ours, statistic)
    return theirs / own if theirs and own else None


def _known(values: Iterable[float | None]) -> list[float]:
    return [min(value, CAP) for value in values if value is not None]


def page(results: Row) -> list[str]:
    """For each part a row for each class of layers, then one for each layer."""
    found = list[str]()
    for part in results["parts"]:
        found += [f"## {part['title'].capitalize()}, {threads_of(part)}", ""]
        found += [*_class_table(part), "", *_layer_table(part), ""]
    return [*found, where(results)]


def _class_table(part: Row) -> list[str]:
    by_class = sorted(part["rows"], key=lambda row: row["family"])
    groups = [(name, list(rows)) for name, rows in groupby(by_class, lambda row: row["family"])]
    is_short = [row for row in part["rows"] if (best_peer(row) or 0) < SHORT_S]
    long = [row for row in part["rows"] if row not in is_short]
    kinds = [*groups, ("all of 50 us and more", long), ("all below 50 us", is_short)]
    rows = []
    for name, some in kinds:
        minima = _known(ratio_to_best(row, "plan") for row in some)
        middles = _known(ratio_to_best(row, "plan", median) for row in some)
        plain = _known(ratio_to_best(row, "functional") for row in some)
        chain = _known(ratio(row, "plan_chain", "onnx_chain", min) for row in some)
        if minima:
            rows.append([
                name, str(len(minima)), show(geometric_mean(minima)), show(geometric_mean(middles)),
                f"{sum(each < LOSS for each in minima) / len(minima):.0%}", show(min(minima)),
                show(geometric_mean(plain) if plain else None),
                show(geometric_mean(chain) if chain else None),
            ])  # fmt: skip
    titles = ["class", "layers", "by minima", "by medians", f"below {LOSS:g}", "least"]
    return [
        *table([*titles, "nothing kept", "three in a row"], rows), "",
        "How many times as long the faster of PyTorch and ONNX Runtime's node takes as "
        f"`tconv.plan`: geometric means of ratios, each at most {CAP:g}. Nothing kept: as "
        "`tconv.conv`. Three in a row: ONNX Runtime alone, for three such layers in one model.",
    ]  # fmt: skip


def _layer_table(part: Row) -> list[str]:
    rows = []
    for row in part["rows"]:
        ours = seconds(row, "plan", min)
        rows.append([
            row["case"], row["sizes"], row["family"], milliseconds(ours),
            show(ours and row["flops"] / ours / 1e9, 0),
            *(milliseconds(seconds(row, name, min)) for name in PEERS),
            show(ratio_to_best(row, "plan")), show(ratio_to_best(row, "plan", median)),
            show(ratio_to_best(row, "functional")),
            show(ratio(row, "plan_chain", "onnx_chain", min)), show(row["others"], 1, "?"),
        ])  # fmt: skip
    titles = ["layer", "sizes", "class", "tconv ms", "GF/s", "PyTorch ms", "ONNX ms", "by minima"]
    return table([*titles, "by medians", "nothing kept", "in a row", "others"], rows, 3)


def lines(results: Row) -> list[Line]:
    """The means over all layers, for the history."""
    found = []
    for part in results["parts"]:
        minima = _known(ratio_to_best(row, "plan") for row in part["rows"])
        middles = _known(ratio_to_best(row, "plan", median) for row in part["rows"])
        if minima:
            what, means = (
                f"{part['title']}, {threads_of(part)}",
                map(geometric_mean, (minima, middles)),
            )
            found.append(Line(what, "plan", "best", len(minima), *means, min(minima)))
    return found


QUICK = 6  # of each group


def main(words: Sequence[str] | None = None) -> None:
    """Measure, write the samples, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.convolutions", description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, min(2, cores())}))
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument("--layers", nargs="+", help="names of some, or beginnings of names")
    parser.add_argument("--quick", action="store_true", help="a few layers, two turns")
    arguments, is_whole = parsed(parser, words)
    groups = {"published": published(), "drawn at random": drawn()}
    if arguments.layers:
        chosen = tuple(arguments.layers)
        groups = {n: [x for x in each if x.name.startswith(chosen)] for n, each in groups.items()}
    if arguments.quick:
        groups = {n: each[:: len(each) // QUICK] for n, each in groups.items()}
    rounds = 2 if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory() as folder:
        results = facts(Path(folder))
    results["parts"] = [
        {
            "title": title, "threads": threads, "dtype": "float32", "want": "x",
            "rows": measure_layers(some, threads, rounds, chains=True),
        }
        for threads in arguments.threads
        for title, some in groups.items()
        if some
    ]  # fmt: skip
    print("\n".join(page(results)))
    finish(results, "convolutions", lines(results), arguments, is_whole)


if __name__ == "__main__":
    main()
