"""Contenders in processes of their own, which read orders and answer.

Run as ``python -m bench.server MODULE:FUNCTION`` this file is that process: a line of JSON in, with
"do" naming an order below, a line out, ``{"answer": ...}`` or ``{"error": ...}``. The answer of a
contender is compared with the float64 reference here, and one that is wrong cannot be timed.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Timer
from time import perf_counter
from typing import Any

import numpy as np

from bench.cases import Case
from bench.machine import peak_mib
from bench.peers import Thunk, as_array, operands
from bench.wants import WANTS

ROOT = Path(__file__).parents[1]
TOLERANCES = {"float16": 2 * 2**-10, "bfloat16": 2 * 2**-7, "float32": 1e-5, "float64": 1e-12}
"""Of the largest value: sums of up to 10,000 products, in the peers' orders too.

For the halves two units in its last place: PyTorch rounds the sums of taps before it adds them.
"""

NETWORK_TOLERANCE = 1e-4
"""Of the largest value: the reference, ONNX Runtime in float32, is itself off by 2e-5 for networks
of 60 layers."""

_PER_PRODUCT = {"float64": 1e-16}
"""What each product of a longer sum may add, as one after the other does; else that of float32."""

MOST_RUNS = 150  # in one slice
SLOW_S = 0.3  # who takes longer is run as often as it is timed, and once before

# ---- the asking side -----------------------------------------------------------------------------


class Failed(Exception):
    """The contender could not do what it was asked; says why."""


class Contender:
    """A contender's process, started when it is first asked, and again after it ended."""

    def __init__(self, name: str, function: str, threads: int, cache: str) -> None:
        self.name, self.function = name, function
        count = str(threads)
        self.environment = os.environ | {
            "OMP_NUM_THREADS": count,
            "OPENBLAS_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
            "TCONV_THREADS": count,
            "TCONV_CACHE": cache,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        }
        self.process: subprocess.Popen[str] | None = None

    def ask(self, do: str, cap_s: float = 60, **arguments: Any) -> Any:
        """Send an order and wait for the answer; who takes longer than `cap_s` is ended."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.server", self.function], env=self.environment,
                text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        process, timed_out = self.process, []
        assert process.stdin is not None
        assert process.stdout is not None
        timer = Timer(cap_s, lambda: (timed_out.append(True), process.kill()))
        timer.start()
        try:
            print(json.dumps({"do": do} | arguments), file=process.stdin, flush=True)
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            code = self.close()
            raise Failed(f"over {cap_s:g} s" if timed_out else f"its process ended with {code}")
        reply = json.loads(line)
        if "error" in reply:
            raise Failed(reply["error"])
        return reply["answer"]

    def close(self) -> int:
        """Let the process end, if there is one; return its code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        assert process.stdin is not None
        try:
            process.stdin.close()
        except BrokenPipeError:
            process.kill()
        code = process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return code


def write_reference(function: str, threads: int, cache: str, path: str, **order: Any) -> None:
    """Let a process of its own write what is computed in float64: of a layer, or of a network.

    A layer's `order` is its case, dtype, seed and want; a network has none.
    """
    referee = Contender("reference", function, threads, cache)
    try:
        if order:
            referee.ask("refer", **order, path=path)
        else:
            referee.ask("refer_network", threads=threads, path=path)
    finally:
        referee.close()


# ---- the process itself --------------------------------------------------------------------------


class Server:
    """One contender and the case that it is set up for. Methods without underscore are orders."""

    def __init__(self, function: Callable[..., Thunk]) -> None:
        self._function = function
        self._call: Thunk | None = None
        self._is_slow = False
        self._last: Any = None  # what a slow call gave, to be compared
        self._references: list[np.ndarray] = []
        self._dtype, self._tolerance = "", 0.0

    def versions(self, packages: list[str]) -> dict[str, str]:
        """Versions of what is installed."""
        found = {}
        for package in packages:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                continue
        return found

    def machine(self) -> str:
        """What tconv generates code for, in its own words."""
        from tconv.engine import host_target as target

        return str(target())

    def refer(self, case: list[Any], dtype: str, seed: int, path: str, want: str = "y") -> None:
        """Write the answer in float64 to a folder, a file for each array of it."""
        made = as_case(case)
        arrays = tuple(a.astype(np.float64) for a in operands(made, dtype, seed, want))
        _save(self._function(made, arrays, 0)(), path)

    def prepare(
        self, case: list[Any], dtype: str, threads: int, seed: int, reference: str, want: str = "y"
    ) -> dict[str, float]:
        """Set a case up, run it, and compare; returns the error and the last run's seconds."""
        self._call = None  # one case in memory at a time
        made = as_case(case)
        products = max(made.products(letter) for letter in WANTS[want].letters)
        self._tolerance = tolerance(dtype, products)
        arrays = operands(made, dtype, seed, want)
        return self._hold(self._function(made, arrays, threads), dtype, reference)

    def refer_convolution(self, layer: list[Any], path: str, count: int = 1) -> None:
        """Write what a convolution gives in float64, or what several in a row give."""
        from bench.convolutions import as_layer, operands_of

        made = as_layer(layer)
        x, *others = operands_of(made)
        for _ in range(count):
            x = self._function(made, (x, *others), 0)()
        _save(x, path)

    def prepare_convolution(
        self, layer: list[Any], threads: int, reference: str, count: int = 1
    ) -> dict[str, float]:
        """Set a convolution up, run it, and compare, as `prepare` does."""
        from bench.convolutions import as_layer, operands_of

        self._call, made = None, as_layer(layer)
        self._tolerance = tolerance("float32", count * made.flops // made.y_cells)
        call = self._function(made, operands_of(made), threads)
        return self._hold(call, "float32", reference)

    def refer_network(self, path: str, threads: int) -> None:
        """Write what a network gives in float64."""
        _save(self._function("float64", threads)(), path)

    def prepare_network(self, dtype: str, threads: int, reference: str) -> dict[str, float]:
        """Set a network up, run it, and compare, as `prepare` does."""
        self._call, self._tolerance = None, NETWORK_TOLERANCE
        return self._hold(self._function(dtype, threads), dtype, reference)

    def time(self, runs: int, seconds: float, most_s: float) -> list[float]:
        """Run so often and so long, but not beyond `most_s`; the microseconds of each."""
        call, taken, is_slow = self._checked(), list[float](), self._is_slow
        begin = perf_counter()
        while True:
            self._last = None
            start = perf_counter()
            if is_slow:
                self._last = call()
            else:
                call()  # and what it gave is freed, which is part of the time
            end = perf_counter()
            taken.append(float(f"{(end - start) * 1e6:.4g}"))
            passed, count = end - begin, len(taken)
            enough = count >= runs and passed >= seconds
            if enough or passed >= most_s or count >= MOST_RUNS:
                return taken

    def loop(self, calls: int, repeats: int) -> list[float]:
        """Seconds per call, from as many loops of so many calls; for very short ones."""
        call, taken = self._checked(), list[float]()
        for _ in range(repeats):
            begin = perf_counter()
            for _ in range(calls):
                call()
            taken.append(float(f"{(perf_counter() - begin) / calls:.4g}"))
        return taken

    def _hold(self, call: Thunk, dtype: str, reference: str) -> dict[str, float]:
        files, self._dtype, self._last = sorted(Path(reference).iterdir()), dtype, None
        self._references = [np.load(file, mmap_mode="r") for file in files]
        begin = perf_counter()
        result = call()
        taken = perf_counter() - begin
        error = self._error(result)
        del result  # so that the next run finds memory as all others do
        self._is_slow = taken > SLOW_S
        if not self._is_slow:
            begin = perf_counter()
            call()
            taken = perf_counter() - begin
        self._call = call
        return {"error": error, "seconds": taken}

    def check(self) -> float:
        """Error of one more run, or of a slow one's last: who was right once must still be."""
        call, last = self._checked(), self._last
        return self._error(call() if last is None else last)

    def peak_mib(self) -> float | None:
        """The most memory that this process had at once."""
        return peak_mib()

    def describe(self) -> dict[str, Any]:
        """What the contender tells of itself, if anything."""
        found: dict[str, Any] = getattr(self._checked(), "describe", dict)()
        return found

    def expect(self, case: list[Any], dtype: str, threads: int) -> float | None:
        """Seconds that tconv's printed plan expects; None where the engine does not compute."""
        from bench.peers import plan_of

        found = re.search(r"expected ([\d.,]+) us", str(plan_of(as_case(case), dtype, threads)))
        return float(found[1].replace(",", "")) / 1e6 if found else None

    def _checked(self) -> Thunk:
        if self._call is None:
            raise RuntimeError("nothing is set up that gave the right answer")
        return self._call

    def _error(self, result: Any) -> float:
        """Largest difference from the reference, of its largest value; raise if that is too much.

        Of an answer of several arrays, that of the worst one.
        """
        pairs = zip(_parts(result), self._references, strict=True)
        error = float(np.max([_difference(*pair, self._dtype) for pair in pairs]))
        if not error <= self._tolerance:
            self._call = None
            raise RuntimeError(f"wrong: error {error:.1e} of the largest value")
        return error


def tolerance(dtype: str, products: int = 0) -> float:
    """How far an answer may be off, of its largest value, whose sums have so many products."""
    return max(TOLERANCES[dtype], products * _PER_PRODUCT.get(dtype, 1e-9))


def _parts(result: Any) -> list[np.ndarray]:
    """The arrays of an answer, which may be one."""
    return [as_array(each) for each in (result if isinstance(result, tuple) else (result,))]


def _difference(result: np.ndarray, reference: np.ndarray, dtype: str) -> float:
    """Slice by slice, for a float64 copy of the whole result may be large."""
    if result.shape != reference.shape or result.dtype.name != dtype:
        raise RuntimeError(f"wrong: {result.dtype} {result.shape} instead of {reference.shape}")
    worst = [np.abs(a - b).max() for a, b in zip(result, reference, strict=True)]
    return float(np.max(worst) / np.abs(reference).max())


def _save(result: Any, folder: str) -> None:
    Path(folder).mkdir()
    for n, array in enumerate(_parts(result)):
        np.save(Path(folder) / f"{n}.npy", array)


def as_case(values: list[Any]) -> Case:
    """Return a case that went through JSON."""
    case = Case(*values)
    return case._replace(I=tuple(case.I))


def function_of(words: str) -> Callable[..., Thunk]:
    """The function that MODULE:FUNCTION means."""
    module, _, name = words.partition(":")
    function: Callable[..., Thunk] = getattr(import_module(module), name)
    return function


def serve(function: str) -> None:
    """Answer on what was standard output, and let nobody else write there."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server = Server(function_of(function))
    for line in sys.stdin:
        order = json.loads(line)
        try:
            reply = {"answer": getattr(server, order.pop("do"))(**order)}
        except Exception as error:
            reply = {"error": f"{error}" or type(error).__name__}
        print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
