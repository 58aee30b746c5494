"""Published tables and bars of README.md and docs/, from the newest results.

``python -m bench.publish`` writes them.

Nothing is chosen by its result:

- In the README's table of layers every published layer counts in one row, by its family, and every
  layer that was drawn at random in the last; float32, with the most threads that were measured.
- In its table of networks each PyTorch model, as `accelerate(model)` leaves it, and each ONNX
  network counts in the row of its task; with the most threads that were measured, which is what
  both libraries take by default.
"""

from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from bench import convolutions, ladder, models, networks, report, streams, volumes
from bench.picture import as_svg
from bench.report import CAPS, mean, ratios, show, table, threads_of
from bench.server import ROOT
from bench.store import RESULTS, is_measured, machine, newest, write_whole

__all__ = ["LAYERS", "TASKS", "pages", "publish"]

Row = dict[str, Any]

LAYERS = {
    "1-D: vocoders, speech separation": ("1-D",),
    "2-D, kernel as large as the stride: U-Net, SAM": ("k = s",),
    "2-D, all others: DCGAN, StyleGAN2, FCN": ("k > s", "k < s", "few output channels"),
    "depthwise: CenterNet, FCN": ("depthwise",),
    "3-D: volumes": ("3-D",),
}
"""Rows of the README, and the families that count in each. The drawn layers are one more."""

TASKS = {
    "a voice: Piper": ("piper",),
    "speech frame by frame: GTCRN, DeepFilterNet": ("gtcrn", "erb1", "erb100"),
    "text detection: PP-OCRv4, PP-OCRv5": ("ppocr4", "ppocr5"),
    "medicine: pupils, sleep spindles": ("pupils", "spindles"),
    "volumes: 3-D U-Net": ("unet3d",),
}
"""Rows of the README, and the networks that count in each."""

DECODERS = {
    "decoders: HiFi-GAN, DCGAN, SAM's head": ("hifigan", "dcgan", "masks"),
    "U-Nets of two and three axes": ("unet", "unet3d"),
    "codecs: EnCodec, DAC, Mimi, SpeechT5": ("encodec", "dac", "mimi", "speech"),
}
"""Rows of the README, and the models of `bench.models` that count in each."""

# ---- the README ----------------------------------------------------------------------------------


def table_of_layers(results: Row) -> list[str]:
    """A row for each kind of layer: means and least ratios, planned and called plainly."""
    threads = max(part["threads"] for part in results["parts"])
    published, drawn = (
        next(
            part
            for part in results["parts"]
            if (part["title"], part["dtype"], part["threads"]) == (title, "float32", threads)
        )
        for title in ("published", "drawn at random")
    )
    kinds = {
        title: [row for row in published["rows"] if row["family"] in families]
        for title, families in LAYERS.items()
    }
    rows = []
    for title, members in (kinds | {"sizes drawn at random": drawn["rows"]}).items():
        part = published | {"rows": members}
        found = [ratios(part, ours) for ours in ("plan", "functional")]
        rows.append([title, str(len(found[0])), *map(_mean_and_least, found)])
    return [
        *table(["layers", "number", "`tconv.plan`", "`tconv.conv_transpose`"], rows), "",
        "How many times as long the faster of the two takes: geometric mean of layers, each at "
        f"most {CAPS['float32']:g}, and in brackets the least; below 1 tconv is slower. A plan "
        "keeps its weights packed, a plain call packs them each time. "
        f"float32, {threads_of(published)}, fastest runs. {_where(results)}",
    ]  # fmt: skip


def _mean_and_least(values: list[float]) -> str:
    cap, least = CAPS["float32"], min(values)
    return f"over {cap:g}" if least > cap else f"{mean(values, cap):.2f} ({least:.2f})"


def table_of_models(by_torch: Row, by_onnx: Row) -> list[str]:
    """A row for each task: ONNX networks by `Session`, PyTorch models compiled and accelerated."""
    (part,) = (part for part in by_onnx["parts"] if part["threads"] == _most(by_onnx))
    them = {row["case"]: row["contenders"] for row in part["rows"]}
    rows = []
    for title, names in TASKS.items():
        cases = [them[networks.NETWORKS[name].title] for name in names]
        found = [median(networks.ratios(each, networks.OURS, median)) for each in cases]
        rows.append([title, "ONNX Runtime", _mean_and_range(found), "–", "–"])
    modes = {
        mode: {row["case"]: row["contenders"] for row in part["rows"]}
        for mode in ("forward", "training")
        for part in by_torch["parts"]
        if part["title"] == models.MODES[mode][0] and part["threads"] == _most(by_torch)
    }
    ways = (
        ("forward", models.COMPILED), ("forward", models.LAYERS), ("training", models.LAYERS)
    )  # fmt: skip
    for title, names in DECODERS.items():
        cells = list[str]()
        for mode, own in ways:
            them = [modes[mode][models.MODELS[name]] for name in names]
            found = [value for each in them if (value := models.beside(each, own))]
            cells.append(_mean_and_range(found) if found else "–")
        rows.append([title, "PyTorch", *cells])
    titles = ["network", "without tconv", "inference", "`accelerate`", "`accelerate`, training"]
    return [
        *table(titles, rows, 2), "",
        "Inference: ONNX models by `Session`, PyTorch's by `torch.compile`. How many times as long "
        "the whole network takes without tconv, by medians; below 1 it is faster without. Several "
        "networks: geometric mean (least to greatest). "
        f"{threads_of(part)}. {_where(by_onnx, by_torch)}",
    ]  # fmt: skip


def _mean_and_range(values: list[float]) -> str:
    if len(values) == 1:
        return show(values[0])
    return f"{geometric_mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _most(results: Row) -> int:
    return max(part["threads"] for part in results["parts"])


def _where(*runs: Row) -> str:
    days: dict[str, list[str]] = {}
    for each in runs:
        days.setdefault(machine(each), []).append(each["date"][:10])
    return "; ".join(f"{name}, {' and '.join(dates)}" for name, dates in days.items()) + "."


# ---- pages ---------------------------------------------------------------------------------------


def pages(root: Path = ROOT) -> dict[str, str]:
    """Every file that shows results, as it is to be."""
    layers, steps, by_torch, by_onnx = map(newest, ("layers", "ladder", "models", "networks"))
    on_disk = newest("volumes")
    found = {name: (root / name).read_text("utf-8") for name in ("README.md", "docs/algorithms.md")}
    for name, marker, lines in (
        ("README.md", "layers", table_of_layers(layers)),
        ("README.md", "models", table_of_models(by_torch, by_onnx)),
        ("docs/algorithms.md", "ladder", ladder.page(steps)),
    ):
        found[name] = between(found[name], marker, lines)
    return found | {
        "docs/speed.svg": as_svg(layers["parts"][0]),
        "docs/benchmarks/layers.md": _page(
            "Layers", [*report.summary(layers), *report.details(layers)]
        ),
        "docs/benchmarks/convolutions.md": _page("Convolutions", page_of_convolutions()),
        "docs/benchmarks/models.md": _page("PyTorch models", models.page(by_torch)),
        "docs/benchmarks/networks.md": _page("ONNX networks", networks.page(by_onnx)),
        "docs/benchmarks/streams.md": _page("Streams", streams.page(newest("streams"))),
        "docs/benchmarks/volumes.md": _page("Volumes", volumes.page(on_disk)),
    }


def page_of_convolutions(folder: Path = RESULTS) -> list[str]:
    """The tables of convolutions; where no machine has measured them all, how to do it."""
    if not is_measured("convolutions", folder):
        return ["No machine has measured the whole suite yet; `make bench-convolutions` does."]
    return convolutions.page(newest("convolutions", folder))


def _page(title: str, lines: list[str]) -> str:
    text = [
        f"# {title}", "",
        "Written by `python -m bench.publish`; [how this is measured](../benchmarks.md).", "",
        *lines,
    ]  # fmt: skip
    return "\n".join(line.rstrip() for line in text) + "\n"


def between(text: str, marker: str, lines: list[str]) -> str:
    """Put lines between two markers of a page, which must have them."""
    begin, end = f"<!-- bench:{marker} -->", f"<!-- /bench:{marker} -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page has no {begin} … {end}")
    return "\n".join([head + begin, *lines, "", end + tail])


def publish(root: Path = ROOT) -> list[str]:
    """Write them; return the names of those that changed."""
    written = []
    for name, text in pages(root).items():
        path = root / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text)
            written.append(name)
    return written


if __name__ == "__main__":
    print("published:", *publish())
