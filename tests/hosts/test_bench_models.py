"""Benchmark of models: the same computation on both sides, and a complete table."""

import numpy as np
import pytest
import torch

from bench import models
from bench.codecs import CODECS
from bench.decoders import DECODERS
from bench.server import Server, function_of

WIDTHS = {"hifigan": 32, "unet": 2, "dcgan": 4, "unet3d": 2, "masks": 16}


@pytest.fixture(autouse=True)
def _threads_as_they_were():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("mode", models.MODES)
@pytest.mark.parametrize("name", DECODERS)
def test_all_contenders_give_the_answer_each_time(name, mode):
    expected = models.contender(name, mode, "torch", "float64", 1, width=WIDTHS[name])()
    whos = {models.WHO[own] for own in models.MODES[mode][1]} - {"inductor"}
    for who in sorted(whos):
        call = models.contender(name, mode, who, "float32", 1, width=WIDTHS[name])
        for _ in range(2):
            found = call()
            assert found.dtype == np.float32
            assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_weights_are_packed_once_and_not_kept_in_training(monkeypatch):
    import tconv.torch

    reports, accelerate = [], tconv.torch.accelerate

    def reported(*args, **keywords):
        reports.append(accelerate(*args, **keywords))
        return reports[-1]

    monkeypatch.setattr(tconv.torch, "accelerate", reported)
    monkeypatch.setattr("tconv.torch.module_weights.choices.is_worth", lambda *_: True)
    for mode, expected in (("forward", 1), ("training", 0)):
        call = models.contender("dcgan", mode, "accelerated", "float32", 1, width=WIDTHS["dcgan"])
        for _ in range(3):
            call()
        assert set(reports[-1].packed().values()) == {expected}


def test_contenders_are_found_by_name(tmp_path):
    assert {name: each.title for name, each in (DECODERS | CODECS).items()} == models.MODELS
    server = Server(function_of("bench.models:masks_training_torch"))
    server.refer_network(str(tmp_path / "reference"), 1)
    ours = Server(function_of("bench.models:masks_training_accelerated"))
    assert ours.prepare_network("float32", 1, str(tmp_path / "reference"))["error"] < 1e-5
    for name in ("masks", "masks_training", "masks_sleeping_torch", "vgg_forward_torch"):
        with pytest.raises(AttributeError):
            function_of(f"bench.models:{name}")


def test_the_table_hides_nothing():
    def row(case, **contenders):
        return {"case": case, "others": 0.25, "contenders": contenders}

    rows = [
        row(
            "a",
            torch={"us": [[800.0, 900.0, 880.0], [800.0, 900.0, 840.0]]},
            layers={"us": [[500.0, 400.0, 800.0], [400.0, 600.0, 400.0]]},
            compiled={"us": [[400.0], [200.0]], "ready_s": [2.5, 0.5]},
            again={"us": [[800.0], [1600.0]]},
            dynamo={"us": [[1000.0], [1000.0]]},
            inductor={"failed": "inductor needs g++", "us": []},
        ),
        row("b", torch={"us": [[1000.0]]}, layers={"us": [[2000.0]]}, again={"us": [[990.0]]}),
        row("c", torch={"us": [[1000.0]]}, layers={"failed": "wrong: error"}),
    ]
    results = {
        "date": "2026-01-01T00:00", "processor": "P", "cores": 2, "target": "T", "load": 0.5,
        "versions": {"torch": "1"},
        "parts": [{"title": "forward", "threads": 2, "rows": rows}],
    }  # fmt: skip
    text = "\n".join(models.page(results))
    line = "| a | forward | 2 | 0.800 | 2.00 / 1.93 | 3.00 / 3.20 |  | 0.75 / 0.81 | 0.80 / 0.86 |"
    assert f"{line} – / – | 0.2 |" in text
    assert "| b | forward | 2 | 1.00 | 0.50 / 0.50 |  |  | 1.01 / 1.01 |  |  | 0.2 |" in text
    assert "over 2 pairs of processes" in text
    assert "| c | forward | 2 | 1.00 | – / – |" in text
    assert "c, layers: wrong: error." in text
    assert "a, inductor: inductor needs g++." in text
    assert "below 0.98: 2; of these below every A/A ratio of their row: 2." in text
    assert "| a | 2 | 2.5 | – | 0.5 | – |" in text


def test_a_slow_while_of_the_machine_does_not_count():
    ours = [[10.0], [40.0], [10.0], [10.0], [10.0]]
    theirs = [[12.0], [48.0], [12.0], [9.0], [12.0]]
    found = models.beside({"layers": {"us": ours}, "torch": {"us": theirs}})
    assert found == pytest.approx(1.2)
    assert models.beside({"layers": {"failed": "?"}, "torch": {"us": theirs}}) is None
