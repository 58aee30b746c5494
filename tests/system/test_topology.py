"""Cores and caches, as made-up systems report them."""

import os
import sys

import pytest

from tconv.system.topology import cache_bytes, core_count


def system(root, membership, groups):
    """Write a /proc and a /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for name, text in groups.items():
        (root / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "cgroup" / name).write_text(text)
    return root / "proc", root / "cgroup"


@pytest.mark.parametrize(
    ("membership", "groups", "cores"),
    [
        ("0::/\n", {}, 64),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "900000 100000\n", "cpu.max": "300000 100000\n"}, 3),
        ("0::/../other\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "100000 0\n"}, 64),
        ("0::/\n", {"cpu.max": "\n"}, 64),
        ("nonsense\n:\n\n0::/x\n", {"cpu.max": "500000 100000"}, 5),
        (
            "4:memory:/j\n2:cpu,cpuacct:/j\n",
            {"cpu/j/cpu.cfs_quota_us": "400000\n", "cpu/j/cpu.cfs_period_us": "100000\n"},
            4,
        ),
        (
            "2:cpu:/j\n0::/\n",
            {
                "cpu/j/cpu.cfs_quota_us": "-1\n",
                "cpu/j/cpu.cfs_period_us": "100000\n",
                "cpu/cpu.cfs_quota_us": "250000\n",
                "cpu/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        ("2:cpuset:/j\n", {"cpu/cpu.cfs_quota_us": "1\n", "cpu/cpu.cfs_period_us": "1\n"}, 64),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
def test_a_quota_of_any_group_above_counts(tmp_path, monkeypatch, membership, groups, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert core_count(*system(tmp_path, membership, groups)) == cores


@pytest.mark.skipif(sys.platform != "linux", reason="affinity as Linux keeps it")
def test_affinity_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert core_count(*system(tmp_path, "0::/\n", {"cpu.max": "800000 100000"})) == 1
    assert core_count(tmp_path / "none", tmp_path / "none") == 1


def processor(root, rows, siblings="0"):
    """Write a /sys/devices/system/cpu/cpu0; rows are level, type, size, sharing threads."""
    (root / "topology").mkdir()
    (root / "topology/thread_siblings_list").write_text(f"{siblings}\n")
    for i, row in enumerate(rows):
        (root / f"cache/index{i}").mkdir(parents=True)
        for name, text in zip(("level", "type", "size", "shared_cpu_list"), row, strict=True):
            (root / f"cache/index{i}" / name).write_text(f"{text}\n")
    return root


K = 1024


@pytest.mark.parametrize(
    ("rows", "siblings", "found"),
    [
        (
            [
                (1, "Data", "48K", "0,4"),
                (1, "Instruction", "64K", "0,4"),
                (2, "Unified", "2048K", "0,4"),
                (3, "Unified", "480M", "0-7"),
            ],
            "0,4",
            (48 * K, 2048 * K, 480 * K * K),
        ),
        # Four cores without threads of their own share the second level.
        ([(1, "Data", "64K", "0"), (2, "Unified", "2M", "0-3")], "0", (64 * K, 512 * K, 8192 * K)),
        ([(1, "Data", "32768", "0")], "0", (32 * K, 512 * K, 8192 * K)),
        ([(1, "Data", "0K", "0"), (2, "Unified", "", "0")], "0", (32 * K, 512 * K, 8192 * K)),
        ([(2, "Unified", "1M", "nonsense")], "0", (32 * K, 1024 * K, 8192 * K)),
        ([], "0", (32 * K, 512 * K, 8192 * K)),
    ],
)
def test_caches_are_what_the_kernel_says(tmp_path, rows, siblings, found):
    assert cache_bytes(processor(tmp_path, rows, siblings)) == found


def test_without_the_kernels_word_there_are_still_caches(tmp_path):
    assert cache_bytes(tmp_path / "none") == (32 * K, 512 * K, 8192 * K)
