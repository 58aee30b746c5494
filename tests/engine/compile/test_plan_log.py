"""Plans on disk: what is written comes back while it is among the newest, and code stays."""

import os
import subprocess
import sys
from importlib import import_module

import pytest

from tconv.engine.compile import plan_log
from tconv.engine.compile.disk_cache import cache_info, clear_cache, read_entry, write_entry
from tconv.engine.compile.plan_log import read_plan, write_plan

disk_cache = import_module("tconv.engine.compile.disk_cache")
KEY, OTHER = "1" * 64, "11" + "f" * 62
PLAN = bytes(range(256)) * 3
posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX's")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TCONV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def shelf(folder):
    write_plan(KEY, PLAN)
    return folder / f"{KEY[:2]}.plans"


def key_of(n, start="11"):
    return start + f"{n:062x}"


def test_what_is_written_comes_back_and_the_last_counts(folder):
    assert read_plan(KEY) == (None, "")
    assert not folder.parent.exists()
    write_plan(KEY, PLAN)
    write_plan(OTHER, b"")
    assert read_plan(KEY) == (PLAN, "")
    assert read_plan(OTHER) == (b"", "")
    write_plan(KEY, b"new")
    assert read_plan(KEY) == (b"new", "")
    assert read_plan(key_of(5)) == (None, "")


def test_what_is_large_has_a_file_of_its_own(folder):
    large = bytes(plan_log._MOST_PLAN_BYTES + 1)
    write_plan(KEY, large)
    assert read_plan(KEY) == (large, "")
    assert [file.suffix for file in folder.iterdir()] == [".kernel"]


def test_a_full_file_keeps_its_newest_half(folder, monkeypatch):
    monkeypatch.setattr(plan_log, "_MOST_BYTES", 10_000)
    for n in range(200):
        write_plan(key_of(n), PLAN + bytes([n]))
        (shelf,) = folder.iterdir()
        assert shelf.stat().st_size <= 10_000
        newest = 5_000 // (len(PLAN) + 1 + plan_log._DATA_AT)
        for recent in range(max(0, n + 1 - newest), n + 1):
            assert read_plan(key_of(recent)) == (PLAN + bytes([recent]), "")
    assert read_plan(key_of(100)) == (None, "")


def test_thousands_of_plans_leave_code_where_it_is_and_remove_no_file(folder, monkeypatch):
    for n in range(8):
        write_entry(key_of(n, "00"), PLAN)
    monkeypatch.setattr(plan_log, "_MOST_BYTES", 2**13)
    for name in ("unlink", "scandir", "listdir"):
        monkeypatch.setattr(os, name, lambda *_, **__: pytest.fail("it looked for files"))
    for n in range(10_000):
        write_plan(key_of(n, f"{n % 256:02x}"), PLAN)
    monkeypatch.undo()
    monkeypatch.setenv("TCONV_CACHE", str(folder.parent))
    assert all(read_entry(key_of(n, "00")) == (PLAN, "") for n in range(8))
    info = cache_info()
    assert info["files"] == 256 + 8
    assert info["bytes"] < 256 * 2**13 + 2**14
    assert clear_cache() == info["files"]
    assert list(folder.iterdir()) == []


CALL = """
import sys
import numpy as np, tconv
from tconv.engine.compile import jit, tiers
if sys.argv[1] == "known":
    jit.text_of = tiers.text_of = None  # so that nothing can be compiled
y = tconv.conv_transpose(np.ones((1, 8, 50), np.float32), np.ones((8, 4, 8), np.float32), stride=4)
print(y.shape)
tiers.wait_for_optimised()
"""


def test_a_new_process_still_finds_the_code_after_thousands_of_plans(folder, monkeypatch):
    environment = {**os.environ, "TCONV_CACHE": str(folder.parent), "TCONV_CPU": ""}

    def call(word):
        command = [sys.executable, "-W", "error", "-c", CALL, word]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=100, check=False
        )

    first = call("new")
    assert (first.stdout.split(), first.stderr) == (["(1,", "4,", "204)"], "")
    monkeypatch.setattr(disk_cache, "_MOST_FILES", 100)
    for n in range(10_000):
        write_plan(key_of(n, f"{n % 256:02x}"), PLAN)
    again = call("known")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == first.stdout


# ---- what is not used ----------------------------------------------------------------------------


def fault_of(shelf):
    data, fault = read_plan(KEY)
    assert data is None
    assert fault.startswith((f"{shelf}, which ", f"{shelf.parent}, which "))
    return fault.partition(", which ")[2]


def test_every_byte_counts(shelf):
    whole = shelf.read_bytes()
    start = len(plan_log._MAGIC) + 32
    for at in range(start, len(whole), 7):
        shelf.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        data, fault = read_plan(KEY)
        assert data is None
        is_length = start <= at < start + 4
        assert is_length or fault == f"{shelf}, which is damaged"


def test_part_of_a_plan_is_none_and_what_follows_is_found(shelf):
    whole = shelf.read_bytes()
    for size in range(0, len(whole), 11):
        shelf.write_bytes(whole[:size])
        assert read_plan(KEY) == (None, "")
        write_plan(OTHER, b"other")
        write_plan(KEY, b"again")
        assert read_plan(OTHER) == (b"other", "")
        assert read_plan(KEY) == (b"again", "")


def test_a_plan_under_another_key_is_damaged(shelf):
    whole = shelf.read_bytes()
    shelf.write_bytes(whole.replace(bytes.fromhex(KEY), bytes.fromhex(OTHER)))
    assert read_plan(KEY) == (None, "")
    assert read_plan(OTHER) == (None, f"{shelf}, which is damaged")


def link(shelf):
    shelf.rename(shelf.with_name("elsewhere"))
    shelf.symlink_to(shelf.with_name("elsewhere"))


def pipe(shelf):
    shelf.unlink()
    os.mkfifo(shelf)


SPOILED = {
    "others write": (lambda shelf: shelf.chmod(0o666), "can be written by others"),
    "link": (link, "is not a regular file"),
    "pipe": (pipe, "is not a regular file"),
    "too large": (lambda shelf: os.truncate(shelf, 2**40), "is too large"),
}


@posix
@pytest.mark.parametrize("how", SPOILED)
def test_what_is_not_to_be_trusted_is_replaced(shelf, how):
    spoil, fault = SPOILED[how]
    spoil(shelf)
    assert fault_of(shelf) == fault
    write_plan(KEY, b"new")
    assert read_plan(KEY) == (b"new", "")
    assert shelf.is_file()
    assert not shelf.is_symlink()
    if how == "link":
        assert shelf.with_name("elsewhere").read_bytes().endswith(PLAN)


@posix
def test_an_unsafe_folder_is_left_alone(shelf):
    shelf.parent.chmod(0o777)
    assert fault_of(shelf) == "can be written by others"
    before = shelf.read_bytes()
    write_plan(KEY, b"new")
    assert shelf.read_bytes() == before
    assert read_plan(key_of(1, "77")) == (None, "")  # where there is nothing, nothing is wrong


@posix
@pytest.mark.parametrize("place", ["/proc/tconv", "/dev/null", "/dev/null/tconv", "off"])
def test_where_nothing_can_be_kept_nothing_is(place, monkeypatch):
    monkeypatch.setenv("TCONV_CACHE", place)
    write_plan(KEY, PLAN)
    assert read_plan(KEY) == (None, "")


# ---- several processes ---------------------------------------------------------------------------

AT_ONCE = """
import os, sys
from tconv.engine.compile import disk_cache, plan_log
plan_log._MOST_BYTES, disk_cache._MOST_FILES, disk_cache._PRUNING = 20_000, 20, 2
own = int(sys.argv[1])
found = 0
for n in range(400):
    key = f"{n % 3:02x}{n % 50:062x}"
    plan_log.write_plan(key, b"%d" % n * 200)
    data, fault = plan_log.read_plan(key)
    assert not fault, fault
    assert data is None or data[:1].isdigit(), data  # it may have been dropped by now
    found += data is not None
    key = f"{n % 256:02x}{own:062x}"
    disk_cache.write_entry(key, b"code")
    data, fault = disk_cache.read_entry(key)
    assert (data, fault) in ((b"code", ""), (None, "")), fault
print(found > 200)
"""


def test_processes_at_once_lose_plans_at_most(folder):
    environment = {**os.environ, "TCONV_CACHE": str(folder.parent)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", AT_ONCE, str(own)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for own in range(4)
    ]  # fmt: skip
    assert [process.communicate(timeout=100) for process in processes] == [("True\n", "")] * 4
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]
