"""Benchmark of networks: end to end, with their own weights."""

import json

from bench import networks


def test_a_run_from_end_to_end(tmp_path, capsys):
    output = tmp_path / "results" / "a.json"
    networks.main(["erb1", "--quick", "--threads", "1", "--output", str(output)])
    results = json.loads(output.read_text())
    (part,) = results["parts"]
    (row,) = part["rows"]
    assert (part["threads"], row["case"]) == (1, networks.NETWORKS["erb1"].title)
    assert [*row["contenders"]] == ["onnxruntime", "session", "again", "openvino"]
    peer = row["contenders"].pop("openvino")  # measured where it is installed
    assert ("us" in peer) != ("openvino" in peer.get("failed", ""))
    for own, found in row["contenders"].items():
        assert found["error"] <= 1e-5
        assert [len(us) > 8 for us in found["us"]] == [True]
        assert 20 < found["peak_mib"][0] < 2000
        assert found["by"][0].get("nodes") == (2 if own == "session" else None)
    row["contenders"]["openvino"] = peer
    table = "\n".join(networks.page(results))
    assert f"| {row['case']} | 1 |" in table
    assert table in capsys.readouterr().out


def test_what_cannot_run_is_told_and_the_rest_is_measured(tmp_path, monkeypatch):
    monkeypatch.setitem(networks.WHO, "session", "missing")
    limits = networks.Limits(rounds=2, slice_s=0, least_runs=1)
    found = networks.measure_networks(["erb1"], [1], 1, limits)
    them = found["parts"][0]["rows"][0]["contenders"]
    assert "ended with 1" in them["session"]["failed"]
    assert len(them["again"]["us"]) == 1
    assert "session: its process ended with 1." in "\n".join(networks.page(found))
