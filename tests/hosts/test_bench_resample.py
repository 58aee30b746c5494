"""Benchmark of upsampling: end to end, with few and small cases."""

import json

import pytest

from bench import resample


@pytest.mark.parametrize("names", [["plane linear", "plane cubic"]])
def test_a_run_from_end_to_end(tmp_path, capsys, monkeypatch, names):
    monkeypatch.setattr(resample, "LIMITS", resample.Limits(rounds=1, slice_s=0, least_runs=1))
    output = tmp_path / "a.json"
    resample.main(["--threads", "1", "--cases", *names, "--output", str(output)])
    (part,) = json.loads(output.read_text())["parts"]
    for row in part["rows"]:
        assert {*row["contenders"]} == {"tconv", "scipy", "pillow", "torch"}
        for found in row["contenders"].values():
            assert found["error"] <= 1e-5
            assert len(found["us"]) == 1
    shown = capsys.readouterr().out
    assert all(f"| {name} | " in shown for name in names)


def test_what_cannot_run_is_told(monkeypatch):
    bad = resample.CASES["plane lanczos3"]._replace(others=("scipy",))
    monkeypatch.setitem(resample.CASES, bad.name, bad)
    limits = resample.Limits(rounds=1, slice_s=0, least_runs=1)

    def measured(*_):
        found = {"tconv": {"error": 0, "us": [[1.0]]}, "scipy": {"failed": "no such order"}}
        return {"case": bad.name, "others": None, "contenders": found}

    monkeypatch.setattr(resample, "_measure", measured)
    page = "\n".join(resample.page(resample.measure(1, [bad.name], limits)))
    assert "plane lanczos3, SciPy: no such order." in page
