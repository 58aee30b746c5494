"""Stopped runs: what is there stays, what is missing is computed, the result is the same."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

import tconv
from tconv.errors import ParameterError
from tconv.volumes import convert
from volume_files import contents, leftovers, make_source, weights

SETTINGS = {"stride": 2, "padding": 1, "chunks": (2, 8, 8, 8), "workers": 2}
# A slow computation, so that a kill meets it in the middle.
SLOW = """
import sys, time
import numpy as np
from tconv.volumes import convert
from tconv.volumes.target import Target
write = Target.write
def slowly(self, box, chunk):
    write(self, box, chunk)
    time.sleep(0.004)
Target.write = slowly
if __name__ == "__main__":
    convert("x.zarr", np.load("w.npy"), target=sys.argv[1], **eval(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("w.npy", weights((2, 2, 3, 3, 3)))
    Path("slow.py").write_text(SLOW)
    return make_source("x.zarr", (2, 24, 24, 24), (2, 8, 8, 8))


def start(target, script="slow.py"):
    return subprocess.Popen(
        [sys.executable, script, target, repr(SETTINGS)],
        env={**os.environ, "PYTHONPATH": str(Path(tconv.__file__).parents[1])},
    )


def count(target):
    return sum(1 for path in Path(target).glob("c/**/*") if path.is_file())


def finished(target="y.zarr"):
    return convert("x.zarr", np.load("w.npy"), target=target, **SETTINGS)


def test_three_kills_at_random_leave_the_same_bytes_as_none(source):
    whole = finished("whole.zarr")
    assert whole.computed == 6**3
    for number in range(3):
        process = start("y.zarr")
        wanted = random.Random(number).randint(20, 60) + count("y.zarr")
        while count("y.zarr") < wanted:
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
        process.wait()
        assert not zarr.open_array("y.zarr").attrs["tconv"]["complete"]
    there = count("y.zarr") - len(leftovers("y.zarr"))
    assert 60 <= there < 216
    report = finished()
    assert (report.found, report.computed) == (there, 216 - there)
    assert not leftovers("y.zarr")
    assert contents("y.zarr") == contents("whole.zarr")
    result = tconv.conv_transpose(source, np.load("w.npy"), stride=2, padding=1, method="direct")
    np.testing.assert_array_equal(zarr.open_array("y.zarr")[...], result)


@pytest.mark.parametrize("nth", [1, 2])
def test_a_kill_while_metadata_are_written(nth):
    """Of the array, and of the mark that it is complete: the new file is there, not yet renamed."""
    finished("whole.zarr")
    kill = f"""
import os, pathlib
replace, seen = pathlib.Path.replace, []
def dies(self, target):
    if str(target).endswith("zarr.json"):
        seen.append(target)
        if len(seen) == {nth}:
            os.kill(os.getpid(), 9)
    return replace(self, target)
pathlib.Path.replace = dies
"""
    Path("dies.py").write_text(kill + SLOW.replace("0.004", "0"))
    assert start("y.zarr", "dies.py").wait() == -signal.SIGKILL
    assert len(leftovers("y.zarr")) == 1
    assert count("y.zarr") == (0 if nth == 1 else 216)
    report = finished()
    assert report.computed == (216 if nth == 1 else 0)
    assert contents("y.zarr") == contents("whole.zarr")


def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on():
    slowed = SLOW.partition("if __name__")[0]
    Path("command.py").write_text(
        f"{slowed}\n"
        "import runpy\n"
        "import signal\n"
        # A shell that starts the tests in the background leaves Ctrl-C ignored for all they start.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "runpy.run_module('tconv', run_name='__main__')\n"
    )
    words = ["--volume", "x.zarr", "-w", "w.npy", "-s", "2", "-p", "1", "--chunks", "2x4x4x4"]
    process = subprocess.Popen(
        [sys.executable, "command.py", "run", *words, "-o", "y.zarr"],
        env={**os.environ, "PYTHONPATH": str(Path(tconv.__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
    )
    while count("y.zarr") < 50:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    # Older versions of Zarr warn of what they depend on.
    assert err.endswith("interrupted; run the same command again, and it goes on where it was\n")
    assert "Traceback" not in err
    there = count("y.zarr")
    assert not leftovers("y.zarr")
    report = convert("x.zarr", np.load("w.npy"), target="y.zarr", stride=2, padding=1)
    assert (report.found, report.computed) == (there, 12**3 - there)


def test_an_error_ends_the_run_and_the_next_one_goes_on(monkeypatch):
    set_, calls = zarr.storage.LocalStore.set, []

    async def full(self, key, value):
        calls.append(key)
        if len(calls) > 50:
            raise OSError(28, "No space left on device", key)
        await set_(self, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.storage.LocalStore, "set", full)
        with pytest.raises(OSError, match="No space left on device") as error:
            finished()
        assert error.value.__notes__[0].startswith("at: chunk (0, ")
    there = count("y.zarr")
    assert 45 <= there < 60
    assert finished().found == there


def test_a_damaged_chunk_is_computed_again_where_it_is_asked_for():
    finished()
    good = contents("y.zarr")
    for name in ("c/0/0/0/0", "c/0/5/5/5", "c/0/2/3/4"):  # a corner, the far border, the inside
        path = Path("y.zarr", name)
        path.write_bytes(path.read_bytes()[: 7 if name.endswith("0") else 20])
    Path("y.zarr/c/0/1/1/1").unlink()
    Path("y.zarr/c/0/1/1/2").write_bytes(b"")
    report = convert("x.zarr", np.load("w.npy"), target="y.zarr", verify=True, **SETTINGS)
    assert (report.computed, report.damaged, report.found) == (5, 4, 211)
    assert contents("y.zarr") == good


def test_a_damaged_shard_is_computed_again():
    arguments = {"stride": 2, "chunks": (2, 8, 8, 8), "shards": (2, 16, 16, 16)}
    convert("x.zarr", np.load("w.npy"), target="y.zarr", **arguments)
    good = contents("y.zarr")
    path = Path("y.zarr/c/0/1/1/1")
    path.write_bytes(path.read_bytes()[:-100])
    report = convert("x.zarr", np.load("w.npy"), target="y.zarr", verify=True, **arguments)
    assert (report.computed, report.damaged) == (1, 1)
    assert contents("y.zarr") == good


@pytest.mark.parametrize("target", ["y.zarr", zarr.storage.MemoryStore()])
def test_chunks_of_zeros_are_finished_too(target):
    """Threads open the target at once; the setting that writes zeros must hold for all of them."""
    zeros = zarr.create_array("zeros.zarr", shape=(2, 24, 24, 24), chunks=(2, 8, 8, 8), dtype="f4")
    assert zeros.nchunks_initialized == 0
    for computed in (216, 0):
        report = convert("zeros.zarr", np.load("w.npy"), target=target, **SETTINGS)
        assert report.computed == computed
    assert zarr.open_array(target).nchunks_initialized == 216


def test_the_target_of_other_numbers_is_refused_with_both_named():
    w = np.load("w.npy")
    finished()
    before = contents(".")
    cases = [
        ({"stride": 3}, r"settings: stride=\(2, 2, 2\), size=.* there, stride=\(3, 3, 3\), size="),
        ({"weight": w + 1}, "weight: float32 .* sha256 [0-9a-f]+ there, float32 .* here"),
        ({"bias": w[0, :, 0, 0, 0]}, "bias: none there, float32"),
        ({"adjoint": True}, "operation: conv_transpose there, conv here"),
        ({"source": "other.zarr"}, "source: .* in state [0-9a-f]+ there, .* in state"),
        ({"chunks": (2, 4, 4, 4)}, "chunks=.* are not those of target"),
        ({"shards": (2, 16, 16, 16)}, "shards=.* are not those of target"),
        ({"resume": False}, "has been begun; pass resume=True"),
    ]
    make_source("other.zarr", (2, 24, 24, 24), (2, 8, 8, 8), seed=5)
    before = contents(".")
    for wrong, text in cases:
        arguments = {"source": "x.zarr", "weight": w, "target": "y.zarr", **SETTINGS, **wrong}
        with pytest.raises(ParameterError, match=text):
            convert(**arguments)
        assert contents(".") == before
    report = convert("x.zarr", w, target="y.zarr", stride=1, overwrite=True)
    assert report.found == 0


def test_the_same_settings_in_other_words_go_on():
    w = np.load("w.npy")
    convert("x.zarr", w, target="y.zarr", stride=(2, 2, 2), padding=((1, 1), 1, (1, 1)))
    again = convert("x.zarr", w, None, "y.zarr", stride=2, padding=1, threads=2, memory="1GB")
    assert again.computed == 0


def test_what_is_no_target_is_not_touched():
    w = np.load("w.npy")
    Path("notes").mkdir()
    Path("notes/letter.txt").write_text("dear")
    make_source("foreign.zarr", (2, 3), (2, 3))
    Path("file.zarr").write_text("?")
    zarr.create_group("group.zarr").create_array("dear", shape=(2,), dtype="f4")
    before = contents(".")
    for target, overwrite, text in [
        ("notes", True, "and that is not removed; choose another target"),
        ("notes", False, "holds files that are no Zarr array"),
        ("file.zarr", True, "and that is not removed"),
        ("foreign.zarr", False, "tconv did not make it; pass overwrite=True"),
        ("group.zarr", True, "and that is not removed"),
        ("group.zarr", False, "tconv did not make it"),
    ]:
        with pytest.raises(ParameterError, match=text):
            convert("x.zarr", w, target=target, overwrite=overwrite)
        assert contents(".") == before
    assert convert("x.zarr", w, target="foreign.zarr", overwrite=True).found == 0


def test_a_target_in_another_store_is_replaced_where_that_is_asked_for():
    w, store = np.load("w.npy"), zarr.storage.MemoryStore()
    convert("x.zarr", w, target=store, **SETTINGS)
    with pytest.raises(ParameterError, match="is of another computation"):
        convert("x.zarr", w, target=store, stride=1)
    assert convert("x.zarr", w, target=store, stride=1, overwrite=True).found == 0
    assert convert("x.zarr", w, target=store, stride=1).computed == 0


def test_a_target_whose_metadata_are_damaged_is_told():
    finished()
    Path("y.zarr/zarr.json").write_text("{")
    with pytest.raises(OSError, match="has metadata that cannot be read"):
        finished()


def test_a_source_that_changes_during_the_run_is_noticed():
    def change(done, total):
        if done == 100:
            source = zarr.open_array("x.zarr", mode="r+")
            source[0, 0, 0, 0] = 99

    w = np.load("w.npy")
    with pytest.raises(OSError, match="has changed since the run began"):
        convert("x.zarr", w, target="y.zarr", progress=change, **SETTINGS)
    assert not zarr.open_array("y.zarr").attrs["tconv"]["complete"]
    with pytest.raises(ParameterError, match=r"source: .* in state"):
        finished()


def test_a_damaged_source_is_named_and_in_another_state_when_it_is_restored():
    path = Path("x.zarr/c/0/1/1/1")
    good = path.read_bytes()
    path.write_bytes(good[:20])
    with pytest.raises(OSError, match=r"x.zarr' cannot be read at .*; restore it, then run") as e:
        finished()
    assert e.value.__notes__[0].startswith("at: chunk (0, ")
    assert 0 < count("y.zarr") < 216
    path.write_bytes(good)
    with pytest.raises(ParameterError, match=r"source: .* in state"):
        finished()
    convert("x.zarr", np.load("w.npy"), target="y.zarr", overwrite=True, **SETTINGS)
