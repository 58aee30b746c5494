"""Grad-CAM: an example worked by hand, and maps of a class beside its projection."""

import numpy as np
import pytest

import tconv
from networks import proto_of
from tconv.deconvnet.grad_cam import interpolate

NODES = [
    ("Conv", "image w", "c", {}), ("Relu", "c", "r", {}), ("GlobalAveragePool", "r", "m", {}),
    ("Flatten", "m", "f", {}), ("Gemm", "f g", "scores", {}), ("Softmax", "scores", "p", {}),
]  # fmt: skip
STORED = {"w": np.float32([1, 2]).reshape(2, 1, 1, 1), "g": np.float32([[4, 0, -4], [8, -8, 4]])}
IMAGE = np.float32([[[0, 1, 2, 5], [0, 0, 3, 0]]])


def test_a_map_by_hand():
    """A mean of 8 cells: the slopes of class 2 are -4/8 and 4/8, and the features x and 2x."""
    seen = tconv.see(proto_of(NODES, STORED, (1, 1, 2, 4)), IMAGE, target_class=2)
    (tile,) = seen.tiles
    score = -4 * IMAGE.mean() + 4 * 2 * IMAGE.mean()
    assert (seen.layer, seen.cam_layer, tile.unit) == ("scores", "r", (2,))
    assert tile.activation == score
    np.testing.assert_array_equal(seen.cams[0], IMAGE[0] * (-4 / 8 + 2 * 4 / 8))
    assert seen.arrays()["grad_cam"].shape == (1, 2, 4)
    assert "Selvaraju et al. 2017" in " ".join(seen.captions)


def test_what_speaks_against_a_class_is_0():
    seen = tconv.see(proto_of(NODES, STORED, (1, 1, 2, 4)), IMAGE, target_class=1)
    assert not seen.cams[0].any()


def test_maps_of_several_images_stand_beside_theirs():
    images = [IMAGE, 2 * IMAGE, 3 * IMAGE]
    seen = tconv.see(proto_of(NODES, STORED, (1, 1, 2, 4)), images, target_class=0, top=2)
    assert [tile.image for tile in seen.tiles] == [2, 1]
    np.testing.assert_array_equal(seen.cams[2] * 2, seen.cams[1] * 3)
    assert seen.figure().width > 300
    assert seen.html().count("Grad-CAM of unit 0") == 2


def test_a_network_without_scores_has_no_classes():
    proto = proto_of(NODES[:2], STORED, (1, 1, 2, 4))
    with pytest.raises(tconv.ParameterError, match="target_class=1 needs a network whose first ou"):
        tconv.see(proto, IMAGE, target_class=1)


@pytest.mark.parametrize("size", [(4, 6), (2, 3), (7, 9)])
def test_interpolation_keeps_constants_and_the_order_of_cells(size):
    assert (interpolate(np.full((2, 3), 5.0), size) == 5).all()
    rising = interpolate(np.arange(6.0).reshape(2, 3), size)
    assert (np.diff(rising, axis=0) >= 0).all()
    assert (np.diff(rising, axis=1) >= 0).all()
