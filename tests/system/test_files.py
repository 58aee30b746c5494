"""Files are written complete or not at all, as the older one was; only regular ones are read."""

import os
import socket
import stat
import tempfile
from contextlib import suppress

import pytest

from tconv.errors import ParameterError
from tconv.system.files import check_writable, regular_file, whole_file

posix = pytest.mark.skipif(os.name != "posix", reason="kinds and modes of files are POSIX's")


@pytest.fixture
def plain_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def write(path, text="new", **options):
    with whole_file(path, **options) as unfinished, unfinished.open("x") as file:
        file.write(text)


# ---- writing -------------------------------------------------------------------------------------


@posix
@pytest.mark.usefixtures("plain_umask")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o400, 0o664, 0o755, 0o604])
def test_what_takes_the_place_of_a_file_has_its_permissions(tmp_path, mode):
    path = tmp_path / "a.txt"
    path.write_text("older")
    path.chmod(mode)
    write(path)
    assert (path.read_text(), mode_of(path)) == ("new", mode)
    assert os.listdir(tmp_path) == ["a.txt"]


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_what_the_umask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        write(tmp_path / "a.txt")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "a.txt") == 0o666 & ~mask


@posix
@pytest.mark.usefixtures("plain_umask")
def test_nobody_else_reads_what_replaces_a_private_file_before_it_is_finished(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("older")
    path.chmod(0o600)
    with whole_file(path) as unfinished:
        unfinished.write_text("secret")
        readable = mode_of(unfinished) & 0o077
        reached = all(mode_of(each) & 0o011 for each in unfinished.parents if each != tmp_path)
        assert not readable or not reached
        assert mode_of(unfinished.parent) == 0o700


@posix
def test_an_owner_is_kept_where_the_system_allows_it(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    path = tmp_path / "a.txt"
    path.write_text("older")
    os.chown(path, 1234, 4321)
    path.chmod(0o640)
    write(path)
    status = path.stat()
    assert (status.st_uid, status.st_gid, mode_of(path)) == (1234, 4321, 0o640)


@posix
@pytest.mark.usefixtures("plain_umask")
def test_a_group_that_cannot_be_kept_gets_what_everybody_gets(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("older")
    path.chmod(0o664)
    real = os.stat(path)

    def another_group(self, **options):
        found = os.stat(self, **options)
        if self.name != "a.txt":
            return found
        return os.stat_result((*found[:5], real.st_gid + 1, *found[6:]))

    monkeypatch.setattr(type(path), "stat", another_group)
    monkeypatch.setattr(os, "chown", lambda *_: (_ for _ in ()).throw(PermissionError))
    write(path)
    monkeypatch.undo()
    assert mode_of(path) == 0o644


@posix
def test_a_private_file_inherits_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("older")
    path.chmod(0o666)
    with whole_file(path, inherits=False) as unfinished:
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL, 0o600))
    assert mode_of(path) == 0o600


@posix
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there/a.txt", tmp_path / "link.txt"
    target.write_text("older")
    target.chmod(0o600)
    link.symlink_to("there/a.txt")
    write(link)
    assert link.is_symlink()
    assert (target.read_text(), mode_of(target)) == ("new", 0o600)
    (tmp_path / "dangling.txt").symlink_to("there/b.txt")
    write(tmp_path / "dangling.txt")
    assert (tmp_path / "there/b.txt").read_text() == "new"


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("length", [1, 100, 121, 200, 255])
def test_any_name_that_the_system_takes_will_do(tmp_path, older, length):
    path = tmp_path / ("n" * length)
    if older:
        path.write_text("older")
    check_writable(path)
    assert (path.read_text() if older else os.listdir(tmp_path)) == ("older" if older else [])
    write(path)
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_nothing_is_left_of_a_failure(tmp_path, older, when):
    path = tmp_path / "a.txt"
    if older:
        path.write_text("older")

    def interrupted():
        with whole_file(path) as unfinished:
            if when == "after":
                unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == (["a.txt"] if older else [])
    assert not older or path.read_text() == "older"


def _names(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    return {
        "a name too long": ("n" * 256, OSError, "name too long"),
        "a path too long": ("/".join(["n" * 250] * 20), (OSError, ParameterError), ""),
        "a folder": ("folder", ParameterError, "choose another name"),
        "no folder": ("none/a.txt", ParameterError, "create '.*none' first"),
        "a file as a folder": ("file/a.txt", ParameterError, "create"),
        "a pipe": ("pipe", ParameterError, "must name a regular file"),
        "a device": (os.devnull, ParameterError, "must name a regular file"),
        "a circle of links": ("circle", OSError, "symbolic links"),
        "a null byte": ("a\0b", ParameterError, "without null bytes"),
        "no UTF-8": ("a\ud800", ParameterError, "halves of surrogate pairs"),
        "nothing": ("", ParameterError, "choose another name"),
    }


@posix
def test_what_cannot_be_written_is_told_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = _names(tmp_path)
    before = sorted(os.listdir(tmp_path))
    for case, (name, error, message) in names.items():
        with pytest.raises(error, match=f"(?i){message}") as found:
            check_writable(name)
        assert "\n" not in str(found.value), case
        with pytest.raises(error), whole_file(name) as unfinished:  # and no file takes its place
            unfinished.write_text("new")
    assert sorted(os.listdir(tmp_path)) == before
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@posix
def test_a_folder_without_permission_is_told_before():
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        if user == 0:  # who may write anywhere
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError):
                check_writable(f"{folder}/a.txt")
        finally:
            os.seteuid(user)
            os.chmod(folder, 0o700)
        assert os.listdir(folder) == []


@posix
def test_another_users_file_in_a_folder_for_all_is_told_before():
    if os.geteuid() != 0:
        pytest.skip("only root makes files of others")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o1777)
        with open(f"{folder}/a.txt", "w"):
            os.chmod(f"{folder}/a.txt", 0o666)
        os.seteuid(65534)
        try:
            check_writable(f"{folder}/b.txt")
            with pytest.raises(PermissionError):
                check_writable(f"{folder}/a.txt")
        finally:
            os.seteuid(0)


# ---- reading -------------------------------------------------------------------------------------


@posix
def test_only_regular_files_are_read_and_nothing_is_waited_for(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link"):
        with regular_file(tmp_path / name) as file:
            assert file.read() == b"content"
    os.mkfifo(tmp_path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    with suppress(OSError):  # a path of a socket has at most some 100 bytes
        listening.bind(os.path.relpath(tmp_path / "socket"))
    for path, kind in [
        (tmp_path / "pipe", "a pipe"),
        (tmp_path / "socket", "a socket"),
        ("/dev/zero", "a device"),
        (os.devnull, "a device"),
    ]:
        if os.path.exists(path):
            with pytest.raises(OSError, match=rf"is {kind}, must be a regular file; copy what"):
                regular_file(path)
    listening.close()
    with pytest.raises(IsADirectoryError):
        regular_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        regular_file(tmp_path / "none")
    for name in ("a\0b", "\ud800"):
        with pytest.raises(ParameterError, match="must be a path without null bytes"):
            regular_file(name)


@posix
def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("tconv.system.files.check_regular", lambda path: None)
    with pytest.raises(OSError, match="is a pipe"):
        regular_file(tmp_path / "pipe")
