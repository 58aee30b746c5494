"""Benchmark of volumes: end to end, on volumes of some chunks."""

import json

import numpy as np
import pytest

from bench import volumes


def test_a_run_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(volumes, "QUICK", volumes.QUICK[:1])
    output = tmp_path / "a.json"
    volumes.main(["--quick", "--output", str(output)])
    results = json.loads(output.read_text())
    assert [part["title"] for part in results["parts"]] == [*volumes.PARTS]
    assert results["versions"].keys() >= {*volumes.PACKAGES}
    (whole,), (small,), (_, planned) = (part["rows"] for part in results["parts"])
    for row, tasks in ((whole, 27), (small, 100)):
        ours, plain = row["contenders"]["convert"], row["contenders"]["in_memory"]
        assert row["tasks"] == tasks
        assert row["target"]["chunks"] == [1, *[2 * n for n in row["source"]["chunks"][1:]]]
        assert 0 < row["target"]["stored"] < row["target"]["bytes"]
        for found in (ours, plain):
            assert found["error"] == 0
            assert [len(us) for us in found["us"]] == [1]
            assert 20 < found["peak_mib"][0] < 2000
        assert ours["planned_mib"][0] > 20
        assert sum(plain[f"{n}_s"][0] for n in ("load", "call", "save")) > 0
    assert [*planned["contenders"]] == ["plan", "again", "lazy"]
    assert planned["tasks"] == 1000
    table = "\n".join(volumes.page(results))
    assert "| 3-D, k3 s2 p1 | 8×40×40×40 | 1×79×79×79 | 27 |" in table
    assert table in capsys.readouterr().out
    whats = [(line.what, line.cases) for line in volumes.lines(results)]
    assert whats == [(f"{n}, {volumes.THREADS} threads", 1) for n in ("volumes", "chunks")]


def test_other_bits_are_told_and_their_times_do_not_count(tmp_path, monkeypatch):
    answers = iter("ab")
    monkeypatch.setattr(volumes, "_windows", lambda path: next(answers))
    row = volumes._measure(volumes.small_chunks(100), 1, tmp_path)
    told = {"failed": "wrong: other bits than in memory"}
    assert row["contenders"] == {"convert": told, "in_memory": told}
    part = {"title": "volumes", "threads": 2, "rows": [row]}
    results = {
        "date": "2026-01-01T00:00", "processor": "P", "cores": 2, "target": "T", "load": 0.5,
        "versions": {}, "parts": [part],
    }  # fmt: skip
    assert "100: wrong: other bits than in memory." in volumes.page(results)
    assert volumes.lines(results) == []


@pytest.mark.parametrize("change", [(0, 0, 0), (19, 19, 19)])
def test_cells_sizes_and_types_are_compared(tmp_path, change):
    import zarr

    cells = np.arange(8000, dtype=np.float32).reshape(20, 20, 20)
    found = []
    kinds = (("float32", 10), ("float32", 10), ("float32", 20), ("int32", 10))
    for n, (dtype, chunk) in enumerate(kinds):
        path = tmp_path / str(n)
        array = zarr.create_array(path, shape=cells.shape, chunks=(chunk,) * 3, dtype=dtype)
        array[:] = cells
        found.append(volumes._windows(path))
    assert len({*found}) == 3
    assert found[0] == found[1]
    zarr.open_array(tmp_path / "1", mode="r+")[change] = -1
    assert volumes._windows(tmp_path / "1") != found[0]


def test_a_contender_that_fails_is_told(tmp_path):
    with pytest.raises(volumes.Failed, match="there is no Zarr array"):
        volumes.ask("lazy", tmp_path, volumes.small_chunks(100), source=str(tmp_path / "x"))


def test_small_chunks_are_as_many_as_asked_for():
    for count in volumes.COUNTS:
        case = volumes.small_chunks(count)
        assert np.prod([n / m for n, m in zip(case.source, case.chunks, strict=True)]) == count
