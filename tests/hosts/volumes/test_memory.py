"""Memory of a run: the whole process stays within what was planned, however large the volume."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

import tconv
from tconv.volumes import convert, schedulers
from volume_files import make_source, weights

RUN = """
import sys, numpy as np
from tconv.volumes import convert
if __name__ == "__main__":
    adjoint = sys.argv[2] == "adjoint"
    report = convert(sys.argv[1], np.load("w.npy"), target="y.zarr", stride=2, workers=2,
                     memory=sys.argv[3], adjoint=adjoint)
    # Not ru_maxrss, which a process inherits from the one that starts it.
    (peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    print(int(peak.split()[1]) * 1024, report.needed_bytes, report.written_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of the peak")
@pytest.mark.parametrize("kind", ["zarr", "npy", "adjoint"])
def test_a_run_takes_no_more_than_it_planned(kind, tmp_path, monkeypatch):
    """Of 400 MB of operands and results, in less than the least that Python takes and 60 MB."""
    monkeypatch.chdir(tmp_path)
    Path("run.py").write_text(RUN)
    shape = (1, 384, 384, 384) if kind == "adjoint" else (4, 192, 192, 192)
    np.save("w.npy", weights((8, 1, 2, 2, 2) if kind == "adjoint" else (4, 1, 3, 3, 3)))
    source = "x.zarr"
    if kind == "npy":
        source = "x.npy"
        np.save(source, np.ones(shape, np.float32))
    else:
        array = zarr.create_array(source, shape=shape, chunks=(*shape[:1], 48, 48, 48), dtype="f4")
        slab = np.random.default_rng(0).standard_normal((*shape[:1], 48, *shape[2:])).astype("f4")
        for start in range(0, shape[1], 48):
            array[:, start : start + 48] = slab
    done = subprocess.run(
        [sys.executable, "run.py", source, kind, "350MB"],
        env={"PYTHONPATH": str(Path(tconv.__file__).parents[1]), "TCONV_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    peak, planned, written = map(int, done.stdout.split())
    assert written >= 200_000_000
    assert planned <= 350_000_000
    assert peak <= planned


def test_what_a_program_holds_itself_does_not_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(schedulers, "resident_bytes", lambda: 10**11)
    make_source("x.zarr", (1, 64), (1, 16))
    report = convert("x.zarr", weights((1, 1, 2)), target="y.zarr", memory="512MiB")
    assert report.needed_bytes <= 2**29
