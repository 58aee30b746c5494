"""Benchmark of models: the same computation on both sides, and a complete table."""

import numpy as np
import pytest
import torch

from bench import models
from bench.decoders import DECODERS
from bench.server import Server, function_of

WIDTHS = {"hifigan": 32, "unet": 2, "dcgan": 4, "unet3d": 2, "masks": 16}


@pytest.fixture(autouse=True)
def _threads_as_they_were():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("mode", models.MODES)
@pytest.mark.parametrize("name", models.MODELS)
def test_both_contenders_give_the_answer_each_time(name, mode):
    expected = models.contender(name, mode, "torch", "float64", 1, width=WIDTHS[name])()
    for who in models.WHO.values():
        call = models.contender(name, mode, who, "float32", 1, width=WIDTHS[name])
        for _ in range(2):
            found = call()
            assert found.dtype == np.float32
            assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_weights_are_packed_once_but_in_each_step_of_training(monkeypatch):
    import tconv.torch

    reports, accelerate = [], tconv.torch.accelerate

    def reported(*args, **keywords):
        reports.append(accelerate(*args, **keywords))
        return reports[-1]

    monkeypatch.setattr(tconv.torch, "accelerate", reported)
    for mode, expected in (("forward", 1), ("frozen", 1), ("training", 3)):
        call = models.contender("dcgan", mode, "accelerated", "float32", 1, width=WIDTHS["dcgan"])
        for _ in range(3):
            call()
        assert set(reports[-1].packed().values()) == {expected}


def test_contenders_are_found_by_name(tmp_path):
    assert [*DECODERS] == [*models.MODELS]
    server = Server(function_of("bench.models:masks_training_torch"))
    server.refer_network(str(tmp_path / "reference"), 1)
    ours = Server(function_of("bench.models:masks_training_accelerated"))
    assert ours.prepare_network("float32", 1, str(tmp_path / "reference"))["error"] < 1e-5
    for name in ("masks", "masks_training", "masks_sleeping_torch", "vgg_forward_torch"):
        with pytest.raises(AttributeError):
            function_of(f"bench.models:{name}")


def test_the_table_hides_nothing():
    def row(case, ours, theirs):
        times = {"layers": ours, "torch": theirs}
        return {"case": case, "others": 0.25, "contenders": times}

    rows = [
        row(
            "a",
            {"us": [[500.0], [400.0], [800.0], [500.0]]},
            {"us": [[800.0], [900.0], [880.0], [800.0]]},
        ),
        row("b", {"us": [[2000.0]]}, {"us": [[1000.0]]}),
        row("c", {"failed": "wrong: error"}, {"us": [[1000.0]]}),
    ]
    results = {
        "date": "2026-01-01T00:00", "processor": "P", "cores": 2, "target": "T", "load": 0.5,
        "versions": {"torch": "1"},
        "parts": [{"title": "forward", "threads": 2, "rows": rows}],
    }  # fmt: skip
    text = "\n".join(models.page(results))
    assert "| a | forward | 2 | 0.800 | 0.400 | 1.60 | 0.40 | 2.00 | 0.2 |" in text
    assert "| b | forward | 2 | 1.00 | 2.00 | 0.50 | – | 0.50 | 0.2 |" in text
    assert "| c | forward | 2 | 1.00 | – | – | – | – | 0.2 |" in text
    assert "c, accelerated: wrong: error." in text
    assert "of these 2 is 0.89, the least is 0.50; 1 are below 0.98." in text


def test_a_slow_while_of_the_machine_does_not_count():
    ours = [[10.0], [40.0], [10.0], [10.0], [10.0]]
    theirs = [[12.0], [48.0], [12.0], [9.0], [12.0]]
    found = models.beside({"layers": {"us": ours}, "torch": {"us": theirs}})
    assert found == pytest.approx(1.2)
    assert models.beside({"layers": {"failed": "?"}, "torch": {"us": theirs}}) is None
