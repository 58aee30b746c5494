"""Cost model of PyTorch's layers, against recorded results and by what cannot be otherwise."""

import math

from bench import torch_costs
from bench.store import RESULTS, newest
from tconv.torch.cost_model import layer_us, processor


def test_a_layer_of_more_work_takes_no_less_time():
    here = processor(2)
    for is_transposed in (False, True):
        times = [
            layer_us(is_transposed, (1, 64, n, n), (64, 64, 3, 3), (1, 64, n, n), 1, here)
            for n in (4, 16, 64, 256)
        ]
        assert times == sorted(times)
        one = layer_us(
            is_transposed, (1, 64, 64, 64), (64, 64, 3, 3), (1, 64, 64, 64), 1, processor(1)
        )
        assert one >= times[2]


def test_recorded_layers_are_left_to_the_faster_one(monkeypatch):
    monkeypatch.setattr(torch_costs, "_here", lambda suite: newest(suite, RESULTS)["parts"])
    found = list(torch_costs.ratios())
    assert len(found) > 100
    wrong = [each for each in found if each.is_wrong]
    assert len(wrong) <= 0.1 * len(found)
    assert sum(abs(math.log(each.measured)) for each in wrong) <= 0.02 * len(found)
    assert torch_costs.summary(found)[2].startswith("| all")
