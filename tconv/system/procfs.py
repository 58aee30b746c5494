"""Files of /proc, /sys and control groups, whose text Linux generates on each read."""

import os

__all__ = ["cgroup_folders", "read_text"]

_PIECE_BYTES = 2**15  # larger buffers come from the system, which takes as long as the read


def read_text(path: str) -> str:
    """Return the text of a small file.

    A first call reads dozens of them; with `open` and `pathlib` that takes 0.5 ms more.
    """
    file, found = os.open(path, os.O_RDONLY), b""
    try:
        while piece := os.read(file, _PIECE_BYTES):
            found += piece
    finally:
        os.close(file)
    return found.decode()


def cgroup_folders(line: str, root: str, controller: str) -> tuple[list[str], bool]:
    """Return the folders of a control group and of those above, and whether they are of version 2.

    Parameters
    ----------
    line : of /proc/self/cgroup; one without the controller gives no folders
    root : where control groups are mounted
    controller : "memory" or "cpu"

    >>> cgroup_folders("0::/a/b", "/groups", "cpu")
    (['/groups/a/b', '/groups/a', '/groups'], True)
    >>> cgroup_folders("4:cpu,cpuacct:/a", "/groups", "cpu")
    (['/groups/cpu/a', '/groups/cpu'], False)
    """
    _, controllers, path = [*line.split(":", 2), "", ""][:3]
    is_unified = controllers == ""
    if not is_unified and controller not in controllers.split(","):
        return [], False
    base = root if is_unified else f"{root}/{controller}"
    names = [name for name in path.split("/") if name]
    return ["/".join((base, *names[:depth])) for depth in range(len(names), -1, -1)], is_unified
