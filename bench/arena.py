"""Memory of the values of a network in ONNX Runtime: its arena, as ONNX Runtime's own log tells.

``python -m bench.arena NETWORK THREADS`` runs a network with that log. An arena grows by powers of
two; weights lie elsewhere.
"""

import re
import subprocess
import sys

from bench.server import ROOT

_TOTAL = re.compile(r"Total allocated bytes: (\d+)")
_RUNS = 3


def arena_mib(network: str, threads: int) -> float | None:
    """MiB of the arena after some runs; None if the log does not say."""
    order = [sys.executable, "-m", "bench.arena", network, str(threads)]
    done = subprocess.run(order, cwd=ROOT, capture_output=True, text=True, errors="replace")
    found = _TOTAL.findall(done.stderr)
    return int(found[-1]) / 2**20 if found and done.returncode == 0 else None


def main() -> None:
    """Run a network with all of ONNX Runtime's log on the standard error."""
    import onnxruntime

    from bench.networks import feed_of, path_of

    name, threads = sys.argv[1:]
    onnxruntime.set_default_logger_severity(0)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(
        path_of(name), options, providers=["CPUExecutionProvider"]
    )
    for _ in range(_RUNS):
        session.run(None, feed_of(name))


if __name__ == "__main__":
    main()
