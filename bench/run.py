"""HOW IT IS MEASURED: contenders in turns, each in its own process, answers compared first.

``python -m bench.run [--quick] [--case NAME ...] [--threads N] [--output FILE]`` writes every
sample as JSON to bench/results/, and beside it the page that `report.py` makes of it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.cases import CASES
from bench.peers import PEERS
from bench.report import report

ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-5  # of the largest value; float32 sums of up to some 10,000 products
PAUSE = 0.25  # seconds between turns, after which no OpenMP runtime spins any more


class Peer:
    """A contender's process."""

    def __init__(self, name: str, threads: int) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        environment |= {"OPENBLAS_NUM_THREADS": str(threads)}
        self.name, self.threads = name, threads
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.peers", name],
            cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended at {request}")
        return dict(json.loads(answer))

    def close(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(peers: list[Peer], name: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Compare the answers of one case, then time it in rounds."""
    with tempfile.TemporaryDirectory() as folder:
        answers = {}
        for peer in peers:
            path = Path(folder) / f"{peer.name}.npy"
            peer.ask(case=name, threads=peer.threads, seconds=0, save=str(path))
            answers[peer.name] = np.load(path)
    ours = answers["tconv"]
    errors = {
        other: float(np.abs(ours - answer).max() / np.abs(answer).max())
        for other, answer in answers.items()
        if other != "tconv"
    }
    for other, error in errors.items():
        if not error <= TOLERANCE:
            raise SystemExit(
                f"{name}: tconv and {other} differ by {error:.1e} of the largest value"
            )
    samples: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for turn in range(rounds):
        for peer in peers if turn % 2 == 0 else peers[::-1]:
            time.sleep(PAUSE)
            answer = peer.ask(case=name, threads=peer.threads, seconds=seconds)
            samples[peer.name] += answer["seconds"]
    return {"case": name, "errors": errors, "seconds": samples}


def import_times(repeats: int) -> dict[str, list[float]]:
    """Seconds that a fresh interpreter takes for each import, in turns."""
    samples: dict[str, list[float]] = {"numpy": [], "tconv": []}
    for _ in range(repeats):
        for module, found in samples.items():
            code = (
                "import time; start = time.perf_counter(); "
                f"import {module}; print(time.perf_counter() - start)"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
            found.append(float(done.stdout))
    return samples


def processor() -> str:
    """Name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    """Run as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--case", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, help="default: bench/results/<date>.json")
    arguments = parser.parse_args()
    rounds, seconds = (2, 0.1) if arguments.quick else (6, 0.25)

    peers = [Peer(name, arguments.threads) for name in PEERS]
    versions: dict[str, str] = {"python": platform.python_version()}
    for peer in peers:
        versions |= peer.ask()
    rows = []
    for case in CASES:
        if arguments.case is None or case.name in arguments.case:
            print(case.name, file=sys.stderr, flush=True)
            rows.append(measure(peers, case.name, rounds, seconds))
    for peer in peers:
        peer.close()
    now = datetime.now(UTC)
    results = {
        "date": now.isoformat(timespec="seconds"),
        "processor": processor(),
        "threads": arguments.threads,
        "versions": versions,
        "imports": import_times(5 if arguments.quick else 15),
        "cases": rows,
    }
    output = arguments.output or ROOT / "bench" / "results" / f"{now:%Y-%m-%d-%H%M}.json"
    output.write_text(json.dumps(results, indent=1) + "\n")
    text = report(results)
    output.with_suffix(".md").write_text(text)
    print(text)
    print(f"written to {output}", file=sys.stderr)


if __name__ == "__main__":
    main()
