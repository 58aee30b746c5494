"""Machine code on disk: what is written comes back, and nothing else is ever taken for it."""

import os
import stat
import tracemalloc
import warnings
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tconv.engine.compile.disk_cache import (
    cache_info,
    clear_cache,
    read_entry,
    warn_once,
    write_entry,
)
from tconv.engine.compile.tiers import wait_for_optimised

disk_cache = import_module("tconv.engine.compile.disk_cache")

KEY, OTHER = "1" * 64, "f" * 64
OBJECT = bytes(range(256)) * 4
posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX's")
as_root = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="only root gives files away"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    wait_for_optimised()  # or a thread that compiles for a test before writes here
    monkeypatch.setenv("TCONV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def entry(folder):
    write_entry(KEY, OBJECT)
    return folder / f"{KEY}.kernel"


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_is_written_comes_back(folder):
    assert read_entry(KEY) == (None, "")
    assert not folder.parent.exists()
    write_entry(KEY, OBJECT)
    write_entry(OTHER, b"")
    assert read_entry(KEY) == (OBJECT, "")
    assert read_entry(OTHER) == (b"", "")
    write_entry(KEY, b"new")
    assert read_entry(KEY) == (b"new", "")
    assert sorted(file.name for file in folder.iterdir()) == [f"{KEY}.kernel", f"{OTHER}.kernel"]


@posix
@pytest.mark.parametrize("mask", [0o000, 0o077, 0o002])
def test_only_the_owner_reads_and_writes(folder, mask):
    before = os.umask(mask)
    try:
        write_entry(KEY, OBJECT)
    finally:
        os.umask(before)
    assert (mode(folder.parent), mode(folder)) == (0o700, 0o700)
    assert mode(folder / f"{KEY}.kernel") == 0o600


def test_a_folder_that_the_user_made_keeps_its_mode(folder):
    folder.parent.mkdir(mode=0o755)
    before = mode(folder.parent)
    write_entry(KEY, OBJECT)
    assert mode(folder.parent) == before
    assert read_entry(KEY) == (OBJECT, "")


# ---- entries that are not used -------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(0, 255), st.binary(max_size=8), st.booleans())
def test_no_damage_goes_unseen(at, byte, more, ends):
    whole = disk_cache._header(KEY, OBJECT) + OBJECT
    at %= len(whole)
    damaged = whole[:at] + (b"" if ends else bytes([byte]) + more + whole[at + 1 :])
    header, rest = damaged[: disk_cache._HEADER_BYTES], damaged[disk_cache._HEADER_BYTES :]
    assert damaged == whole or header != disk_cache._header(KEY, rest)


def fault_of(entry):
    data, fault = read_entry(KEY)
    assert data is None
    assert fault.startswith((f"{entry}, which ", f"{entry.parent}, which "))
    return fault.partition(", which ")[2]


def test_an_entry_under_another_name_is_damaged(entry, folder):
    entry.rename(folder / f"{OTHER}.kernel")
    assert read_entry(KEY) == (None, "")
    assert read_entry(OTHER) == (None, f"{folder / OTHER}.kernel, which is damaged")


def test_an_entry_that_is_too_large_is_not_read(entry):
    with entry.open("r+b") as file:
        file.truncate(2**40)
    assert fault_of(entry) == "is too large"


def test_an_object_that_is_too_large_is_not_kept(folder, monkeypatch):
    monkeypatch.setattr(disk_cache, "_MOST_ENTRY_BYTES", 10)
    write_entry(KEY, bytes(10))
    write_entry(OTHER, bytes(11))
    assert read_entry(KEY) == (bytes(10), "")
    assert read_entry(OTHER) == (None, "")


@posix
@pytest.mark.parametrize("bits", [0o620, 0o602, 0o666, 0o777])
def test_an_entry_that_others_can_write_is_replaced(entry, bits):
    entry.chmod(bits)
    assert fault_of(entry) == "can be written by others"
    write_entry(KEY, OBJECT)
    assert read_entry(KEY) == (OBJECT, "")
    assert mode(entry) == 0o600


@posix
@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_can_write_is_left_alone(entry, folder, bits):
    folder.chmod(bits)
    assert fault_of(entry) == "can be written by others"
    write_entry(OTHER, OBJECT)
    assert list(folder.iterdir()) == [entry]
    assert cache_info()["reason"] == f"{folder} can be written by others"


@as_root
def test_what_belongs_to_others_is_not_used(entry, folder):
    os.chown(entry, 4321, -1)
    assert fault_of(entry) == "belongs to another user (4321)"
    write_entry(KEY, OBJECT)
    assert read_entry(KEY) == (OBJECT, "")
    assert entry.stat().st_uid == 0
    os.chown(folder, 4321, -1)
    assert fault_of(folder / "x") == "belongs to another user (4321)"
    write_entry(OTHER, OBJECT)
    assert list(folder.iterdir()) == [entry]


@as_root
def test_what_belongs_to_root_is_used_by_everybody(entry, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert read_entry(KEY) == (OBJECT, "")


@posix
def test_a_link_is_not_followed_and_what_it_points_to_stays(entry, tmp_path):
    entry.rename(tmp_path / "elsewhere")
    entry.symlink_to(tmp_path / "elsewhere")
    assert fault_of(entry) == "is not a regular file"
    write_entry(KEY, b"new")
    assert read_entry(KEY) == (b"new", "")
    assert not entry.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes().endswith(OBJECT)


@posix
def test_a_folder_that_is_a_link_is_left_alone(entry, folder, tmp_path):
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert fault_of(entry) == "is not a folder"
    write_entry(OTHER, OBJECT)
    assert clear_cache() == 0
    assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == [entry.name]


@posix
def test_a_link_to_the_folder_of_the_user_is_followed(folder, tmp_path):
    (tmp_path / "large disk").mkdir()
    folder.parent.symlink_to(tmp_path / "large disk")
    write_entry(KEY, OBJECT)
    assert read_entry(KEY) == (OBJECT, "")


@posix
def test_a_pipe_makes_nobody_wait(entry):
    entry.unlink()
    os.mkfifo(entry)
    assert fault_of(entry) == "is not a regular file"
    write_entry(KEY, OBJECT)
    assert read_entry(KEY) == (OBJECT, "")


def test_a_folder_in_the_place_of_an_entry_stays(entry):
    entry.unlink()
    entry.mkdir()
    (entry / "precious").write_text("x")
    assert fault_of(entry) == "is not a regular file"
    write_entry(KEY, OBJECT)
    assert (entry / "precious").read_text() == "x"


def test_an_entry_that_cannot_be_read_is_not_used(entry, monkeypatch):
    opened = os.open

    def refuse(name, *rest, **more):
        if str(name).endswith(".kernel"):
            raise PermissionError(13, "Permission denied")
        return opened(name, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert fault_of(entry) == "cannot be read (Permission denied)"


def test_an_entry_that_is_removed_meanwhile_is_just_not_there(entry, monkeypatch):
    def refuse(*_):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "open", refuse)
    assert read_entry(KEY) == (None, "")


def test_one_warning_is_enough(monkeypatch):
    monkeypatch.setattr(disk_cache, "_has_warned", False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for fault in ("", "a, which is damaged", "b, which is damaged"):
            warn_once(fault)
    (only,) = caught
    assert only.category is RuntimeWarning
    assert str(only.message).startswith(
        "the cache of kernels does not use a, which is damaged; the kernel was compiled again. "
    )


# ---- places that cannot be used ------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(28, "No space left"), OSError(30, "Read-only")])
def test_a_full_or_read_only_disk_costs_time_only(entry, folder, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        write_entry(OTHER, OBJECT)
    assert list(folder.iterdir()) == [entry]


def test_a_disk_that_fills_up_keeps_no_half_of_an_entry(entry, folder, monkeypatch):
    class Full:
        def __init__(self, file, _):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            os.close(self.file)

        def write(self, data):
            os.write(self.file, data[:100])
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", Full)
        write_entry(OTHER, OBJECT)
    assert list(folder.iterdir()) == [entry]


@posix
@pytest.mark.parametrize("place", ["/proc/tconv", "/dev/null", "/dev/null/tconv"])
def test_a_place_where_nothing_can_be_made_is_none(place, monkeypatch):
    monkeypatch.setenv("TCONV_CACHE", place)
    write_entry(KEY, OBJECT)
    assert read_entry(KEY) == (None, "")
    info = cache_info()
    assert info["folder"] == f"{place}/kernels"
    assert (info["files"], clear_cache()) == (0, 0)
    if "null" in place:
        assert not info["usable"]
        assert info["reason"] == "/dev/null is not a folder"


def test_off_is_off(monkeypatch, tmp_path):
    monkeypatch.setenv("TCONV_CACHE", "off")
    monkeypatch.setenv("HOME", str(tmp_path))
    write_entry(KEY, OBJECT)
    assert read_entry(KEY) == (None, "")
    assert clear_cache() == 0
    assert list(tmp_path.iterdir()) == []
    assert cache_info() == {
        "folder": None, "files": 0, "bytes": 0, "usable": False, "reason": "TCONV_CACHE=off",
    }  # fmt: skip


# ---- counting and removing -----------------------------------------------------------------------


def test_what_is_kept_is_told(folder):
    assert cache_info() == {
        "folder": str(folder), "files": 0, "bytes": 0, "usable": True, "reason": "",
    }  # fmt: skip
    write_entry(KEY, OBJECT)
    write_entry(OTHER, OBJECT)
    assert cache_info() == {
        "folder": str(folder),
        "files": 2,
        "bytes": 2 * (disk_cache._HEADER_BYTES + len(OBJECT)),
        "usable": True,
        "reason": "",
    }
    assert clear_cache() == 2
    assert cache_info()["files"] == 0


def test_a_folder_that_cannot_be_written_is_told(entry, folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cache_info()["reason"] == f"{folder} cannot be written"


def test_nothing_but_our_own_files_is_removed(entry, folder, tmp_path):
    unfinished = folder / f".{OTHER}.kernel.0123abcd"
    unfinished.write_bytes(b"")
    (folder / f"{OTHER}.kernel").mkdir()
    others = ["notes.txt", f"{KEY}.kernel.bak", f"{KEY[1:]}.kernel", f"x{KEY}.kernel", ".x"]
    for name in others:
        (folder / name).write_text("precious")
    link = folder / f"{'a' * 64}.kernel"
    (tmp_path / "precious").write_text("x")
    link.symlink_to(tmp_path / "precious")
    assert clear_cache() == 2
    left = {file.name for file in folder.iterdir()}
    assert left == {*others, link.name, f"{OTHER}.kernel"}
    assert (tmp_path / "precious").read_text() == "x"


@as_root
def test_files_of_others_are_not_removed(entry):
    os.chown(entry, 4321, -1)
    assert clear_cache() == 0
    assert cache_info()["files"] == 0


def aged(key, hours):
    write_entry(key, OBJECT)
    path = Path(cache_info()["folder"]) / f"{key}.kernel"
    os.utime(path, (0, path.stat().st_mtime - 3600 * hours))
    return path


def test_beyond_the_bound_the_oldest_go(folder, monkeypatch):
    files = [aged(f"{i + 1:x}" * 64, hours) for i, hours in enumerate((5, 1, 3, 2, 4))]
    size = disk_cache._HEADER_BYTES + len(OBJECT)
    monkeypatch.setattr(disk_cache, "_MOST_BYTES", 4 * size)
    write_entry("9" * 64, OBJECT)  # not one of the keys that look
    assert cache_info()["files"] == 6
    write_entry("00" + "9" * 62, OBJECT)
    assert cache_info()["bytes"] == 4 * size
    assert [file.exists() for file in files] == [False, True, False, True, False]
    assert (folder / f"00{'9' * 62}.kernel").exists()


def test_so_they_do_beyond_a_number_of_files(folder, monkeypatch):
    files = [aged(f"{i + 1:x}" * 64, hours) for i, hours in enumerate((5, 1, 3, 2, 4))]
    monkeypatch.setattr(disk_cache, "_MOST_FILES", 3)
    write_entry("00" + "9" * 62, OBJECT)
    assert [file.exists() for file in files] == [False, True, False, True, False]
    assert cache_info()["files"] == 3


def test_a_write_removes_a_few_files_at_most(folder, monkeypatch):
    for i in range(300):
        write_entry(f"{'f' * 60}{i:04x}", b"")
    monkeypatch.setattr(disk_cache, "_MOST_FILES", 10)
    write_entry("01" + "9" * 62, b"")  # not one of the keys that look
    assert cache_info()["files"] == 301
    for left in (238, 174, 110, 46, 10, 10):
        write_entry("00" + "9" * 62, b"")
        assert cache_info()["files"] == left
    assert disk_cache._MOST_REMOVED > disk_cache._PRUNING  # more than are written meanwhile


def test_what_is_read_stays(folder, monkeypatch):
    old, older, oldest = (aged(f"{i}" * 64, hours) for i, hours in ((1, 30), (2, 31), (3, 32)))
    recent = aged("4" * 64, 2)
    before = recent.stat().st_mtime
    assert read_entry("3" * 64) == read_entry("4" * 64) == (OBJECT, "")
    assert recent.stat().st_mtime == before  # it is marked at most once a day
    monkeypatch.setattr(disk_cache, "_MOST_FILES", 3)
    write_entry("00" + "9" * 62, OBJECT)
    assert [file.exists() for file in (old, older, oldest, recent)] == [False, False, True, True]


def test_what_cannot_be_marked_is_read_all_the_same(folder, monkeypatch):
    aged(KEY, 30)

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(os, "supports_fd", {refuse})
    assert read_entry(KEY) == (OBJECT, "")


@posix
def test_a_folder_that_is_swapped_after_it_was_looked_at_is_not_read(entry, folder, monkeypatch):
    check = disk_cache.Place.check

    def look_and_swap(place):
        check(place)
        folder.rename(folder.with_name("moved"))
        folder.mkdir(mode=0o777)
        entry.write_bytes(disk_cache._header(KEY, b"evil") + b"evil")

    with monkeypatch.context() as patch:
        patch.setattr(disk_cache.Place, "check", look_and_swap)
        assert read_entry(KEY) == (OBJECT, "")
    folder.rename(folder.with_name("evil"))
    folder.with_name("moved").rename(folder)
    with monkeypatch.context() as patch:
        patch.setattr(disk_cache.Place, "check", look_and_swap)
        folder.with_name("evil").rename(folder.with_name("elsewhere"))
        write_entry(OTHER, OBJECT)
    assert not (folder / f"{OTHER}.kernel").exists()
    assert (folder.with_name("moved") / f"{OTHER}.kernel").exists()


def test_looking_for_the_oldest_takes_little_memory(folder):
    for i in range(1000):
        write_entry(f"{'f' * 60}{i:04x}", b"")
    tracemalloc.start()
    write_entry("00" + "9" * 62, b"")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1000 * 500


def test_what_unfinished_writing_left_goes_after_an_hour(entry, folder):
    old, new = (folder / f".{OTHER}.kernel.0000000{i}" for i in (1, 2))
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (0, old.stat().st_mtime - 3700))
    write_entry("00" + "9" * 62, OBJECT)
    assert not old.exists()
    assert new.exists()
    assert entry.exists()
