"""Small files that Linux makes as they are read: /proc, /sys and control groups."""

import os

__all__ = ["content", "group_folders"]

_PART_BYTES = 2**15  # larger buffers come from the system, which takes as long as reading


def content(path: str) -> str:
    """Return what stands in a small text file, such as the system makes as they are read.

    A first call reads dozens of them, so that what `open` and `pathlib` add counted: 0.5 ms.
    """
    file, found = os.open(path, os.O_RDONLY), b""
    try:
        while part := os.read(file, _PART_BYTES):
            found += part
    finally:
        os.close(file)
    return found.decode()


def group_folders(line: str, root: str, controller: str) -> tuple[list[str], bool]:
    """Folders of a control group and of those above it, and whether they are of version 2.

    Parameters
    ----------
    line : of /proc/self/cgroup; one that says nothing of the controller gives no folders
    root : where control groups are mounted
    controller : what is asked about, "memory" or "cpu"

    >>> group_folders("0::/a/b", "/groups", "cpu")
    (['/groups/a/b', '/groups/a', '/groups'], True)
    >>> group_folders("4:cpu,cpuacct:/a", "/groups", "cpu")
    (['/groups/cpu/a', '/groups/cpu'], False)
    """
    _, controllers, path = [*line.split(":", 2), "", ""][:3]
    is_unified = controllers == ""
    if not is_unified and controller not in controllers.split(","):
        return [], False
    base = root if is_unified else f"{root}/{controller}"
    names = [name for name in path.split("/") if name]
    return ["/".join((base, *names[:depth])) for depth in range(len(names), -1, -1)], is_unified
