"""Rounds of timing: contenders take turns, and their answers are compared before and after."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from bench.machine import Watch
from bench.server import Contender, Failed

__all__ = ["LEAST_RUNS", "PAUSE_S", "SLICE_CAP_S", "SLICE_S", "Limits", "joined", "take_turns"]

# Before each slice, so that no pool spins any more: PyTorch's does for 3 ms, ONNX Runtime's for 25,
# and OpenBLAS's for 100, so more after those who use it. (Xeon, 2 cores)
PAUSE_S, PAUSE_AFTER_BLAS_S = 0.035, 0.085
USE_BLAS = ("portable", "tinyml")
SLICE_S, LEAST_RUNS, SLICE_CAP_S = 0.06, 3, 0.4
SHOWN_BESIDE = ("portable", "onnx_conv", "jax", "tinyml")
ROUNDS_BESIDE = 2  # of these, whose times nothing is decided by
_TOGETHER = 2  # contenders that are set up, or checked, at a time


@dataclass
class Limits:
    """Limits of measuring one case, by contender where they differ."""

    rounds: int = 5
    slice_s: float = SLICE_S
    least_runs: int = LEAST_RUNS  # in a slice
    case_cap_s: float = 2.5  # of one contender, over all rounds
    prepare_cap_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SHOWN_BESIDE, 3))
    use_blas: tuple[str, ...] = USE_BLAS


def take_turns(
    contenders: Sequence[Contender], do: str, order: dict[str, Any], limits: Limits
) -> tuple[dict[str, dict[str, Any]], float | None]:
    """Compare answers, time the right ones in rounds, and compare once more.

    `do` is the order that sets a contender up. Returns what each found, by name, and how many cores
    others kept busy.
    """

    def prepare(each: Contender) -> dict[str, Any]:
        try:
            ready = each.ask(do, limits.prepare_cap_s.get(each.name, 60), **order)
        except Failed as failure:
            return {"failed": str(failure)}
        return {"error": ready["error"], "us": []}

    with ThreadPoolExecutor(_TOGETHER) as pool:  # nothing is timed yet
        prepared = list(pool.map(prepare, contenders))
    found = {each.name: record for each, record in zip(contenders, prepared, strict=True)}
    watch = Watch([each.process.pid for each in contenders if each.process])
    for turn in range(limits.rounds):
        first = turn % len(contenders)
        places = [*contenders[first:], *contenders[:first]]
        for each in places if turn % 2 == 0 else places[::-1]:
            if turn < ROUNDS_BESIDE or each.name not in SHOWN_BESIDE:
                _time_slice(each, found, limits)
    others = watch.others()

    def check(each: Contender) -> None:
        try:
            found[each.name]["error"] = max(found[each.name]["error"], each.ask("check"))
        except Failed as failure:
            found[each.name] = {"failed": f"not the second time: {failure}"}

    with ThreadPoolExecutor(_TOGETHER) as pool:
        list(pool.map(check, [each for each in contenders if "us" in found[each.name]]))
    return found, others


def joined(before: dict[str, Any] | None, record: dict[str, Any]) -> dict[str, Any]:
    """The samples of several processes of a contender and of one more, unless one failed."""
    if before is None or "failed" in record:
        return record
    if "failed" in before:
        return before
    lists = {name: [*before[name], *record[name]] for name in before if name != "error"}
    return {"error": max(before["error"], record["error"])} | lists


def _time_slice(contender: Contender, found: dict[str, dict[str, Any]], limits: Limits) -> None:
    """Add one slice of samples, if the contender gave the right answer and has time left."""
    samples = found[contender.name].get("us")
    if samples is None or sum(map(sum, samples)) / 1e6 > limits.case_cap_s:
        return
    time.sleep(PAUSE_S)
    order = {"runs": limits.least_runs, "seconds": limits.slice_s, "most_s": SLICE_CAP_S}
    try:
        samples.append(contender.ask("time", **order))
        if contender.name in limits.use_blas:
            time.sleep(PAUSE_AFTER_BLAS_S)
    except Failed as failure:
        found[contender.name] = {"failed": str(failure)}
