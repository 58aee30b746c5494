"""Checkerboards of PyTorch's layers."""

import pytest
import torch

import tconv
from tconv.checkerboard import overlap_counts, phase_sums, ripple


@pytest.mark.parametrize("kind", [torch.nn.ConvTranspose2d, torch.nn.Conv2d])
def test_a_layer_of_pytorch_is_one_of_tconv(kind):
    theirs = kind(4, 6, 3, stride=2, dilation=1, groups=2)
    ours = tconv.from_torch(theirs)
    assert overlap_counts(theirs).tolist() == [[4, 2], [2, 1]]
    assert phase_sums(theirs).tolist() == phase_sums(ours).tolist()
    assert ripple(theirs) == ripple(ours) > 0
