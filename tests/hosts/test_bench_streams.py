"""Benchmark of streams: end to end, with few frames."""

import json

from bench import streams


def test_a_run_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(streams, "LIMITS", streams.Limits(rounds=1, slice_s=0, least_runs=1))
    monkeypatch.setattr(streams, "PUSHES", {n: streams.PUSHES[n] for n in ("push64", "random")})
    output = tmp_path / "a.json"
    streams.main(["--quick", "--threads", "1", "--output", str(output)])
    results = json.loads(output.read_text())
    (part,) = results["parts"]
    (row,) = part["rows"]
    assert [*row["contenders"]] == ["whole", "onnxruntime", "push64", "random"]
    for name, found in row["contenders"].items():
        assert found["error"] <= 1e-5
        assert len(found["us"]) == 1
        (told,) = found["by"]
        assert bool(told) == (name in streams.PUSHES)
        assert not told or told["steps_ms"] > 0
    table = "\n".join(streams.page(results))
    assert "| 1 | pushes of 64 frames |" in table
    assert "| 1 | pushes of 1 to 7 frames, drawn |" in table
    assert table in capsys.readouterr().out
    assert [each.what for each in streams.lines(results)] == [
        "pushes of 64 frames, 1 thread",
        "pushes of 1 to 7 frames, drawn, 1 thread",
    ]


def test_what_cannot_run_is_told(monkeypatch):
    monkeypatch.setattr(streams, "PUSHES", {"missing": (1,)})
    limits = streams.Limits(rounds=1, slice_s=0, least_runs=1)
    page = "\n".join(streams.page(streams.measure_streams([1], 1, limits)))
    assert "missing" in page or "pushes of 1 frame: its process ended with 1." in page
    assert "| 1 | pushes of 1 frame | – |" in page
