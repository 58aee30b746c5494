"""WHO TAKES PART: one function per contender that sets a case up and returns a call to be timed.

Run as ``python -m bench.peers NAME`` it serves `run.py`: a line of JSON in, a line of JSON out.
Each contender has its own process, so none meets another's threads still spinning.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.cases import CASES, Case

Thunk = Callable[[], Any]


def operands(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, weight and bias of a case, the same in every process."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(case.x_shape, np.float32)
    weight = rng.standard_normal(case.weight_shape, np.float32)
    weight /= np.sqrt(np.float32(case.C // case.G * case.K ** len(case.I)))
    return x, weight, rng.standard_normal(case.M, np.float32)


def tconv_portable(case: Case, threads: int) -> Thunk:
    """`tconv.conv_transpose` on NumPy arrays; BLAS brings the threads."""
    import tconv

    x, weight, bias = operands(case)
    return lambda: tconv.conv_transpose(x, weight, bias, **case.keywords)


def torch(case: Case, threads: int) -> Thunk:
    """`torch.nn.functional.conv_transpose*d` on the CPU, without autograd."""
    import torch as library

    library.set_num_threads(threads)
    library.set_grad_enabled(False)
    x, weight, bias = map(library.from_numpy, operands(case))
    function = getattr(library.nn.functional, f"conv_transpose{len(case.I)}d")
    return lambda: function(x, weight, bias, **case.keywords)


PEERS = {"tconv": tconv_portable, "torch": torch}


def versions(name: str) -> dict[str, str]:
    """What computes in this process."""
    found = {"numpy": np.__version__}
    if name == "torch":
        import torch as library

        found["torch"] = library.__version__
    else:
        import tconv

        found["tconv"] = tconv.__version__
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        found["blas"] = f"{blas['name']} {blas['version']}"
    return found


def serve(name: str) -> None:
    """Answer requests until standard input ends."""
    cases = {case.name: case for case in CASES}
    thunks: dict[str, Thunk] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "case" not in request:
            print(json.dumps(versions(name)), flush=True)
            continue
        case = cases[request["case"]]
        if case.name not in thunks:
            thunks = {
                case.name: PEERS[name](case, request["threads"])
            }  # one case in memory at a time
        call = thunks[case.name]
        result = call()
        if request.get("save"):
            np.save(Path(request["save"]), np.asarray(result))
        samples = []
        until = time.perf_counter() + request["seconds"]
        while len(samples) < 2 or (time.perf_counter() < until and len(samples) < 50):
            start = time.perf_counter()
            result = call()
            samples.append(time.perf_counter() - start)
        print(json.dumps({"seconds": samples}), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
