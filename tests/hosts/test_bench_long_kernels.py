"""Benchmark of long kernels: one case from end to end."""

import json

from bench import long_kernels


def test_a_run_from_end_to_end(tmp_path, monkeypatch, capsys):
    limits = long_kernels.LIMITS
    monkeypatch.setattr(long_kernels, "LIMITS", type(limits)(rounds=1, slice_s=0, least_runs=1))
    case, output = "8192 by 4 on 50,000", tmp_path / "a.json"
    long_kernels.main(["--threads", "1", "--cases", case, "--output", str(output)])
    ((row,),) = [part["rows"] for part in json.loads(output.read_text())["parts"]]
    assert row["case"] == case
    assert "with stride 1" in row["contenders"].pop("scipy")["failed"]
    for found in row["contenders"].values():
        assert found["error"] < 1e-5
        assert found["us"]
    table = "\n".join(long_kernels.page({"parts": [{"threads": 1, "rows": [row]}]} | _rest(output)))
    assert f"| {case} |" in capsys.readouterr().out
    assert f"| {case} |" in table


def _rest(output):
    results = json.loads(output.read_text())
    return {name: value for name, value in results.items() if name != "parts"}
