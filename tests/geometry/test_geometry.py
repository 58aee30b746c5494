"""Laws of the sizes of a call, computed from any two of the three letters."""

import copy
import pickle
from math import prod

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from strategies import draws, geometries, keywords_of
from tconv.errors import MemoryLimitError, ParameterError, ShapeError
from tconv.geometry.geometry import Geometry, resized


@draws()
@given(geometries())
def test_x_and_weight_say_all(geometry):
    again = Geometry.of(geometry.x_shape, geometry.weight_shape, **keywords_of(geometry))
    assert again == geometry
    assert hash(again) == hash(geometry)


@draws()
@given(geometries())
def test_y_weight_and_the_input_size_say_all(geometry):
    keywords = keywords_of(geometry) | {"output_padding": 0}
    size = geometry.input_size
    again = Geometry.of_conv(geometry.y_shape, geometry.weight_shape, input_size=size, **keywords)
    assert again == geometry


@draws()
@given(geometries(), st.lists(st.integers(1, 40), min_size=6, max_size=6), st.integers(0, 3))
def test_other_sizes_of_a_layer_follow_from_known_ones(geometry, sizes, batch):
    """As the functions compute them, or None where these raise or the layout is another one."""
    assume(min(geometry.input_size) > 0)
    keywords = keywords_of(geometry)
    for letter, extra in (("x", keywords["output_padding"]), ("y", 0)):
        known = geometry
        if letter == "y":
            keywords |= {"output_padding": 0}
            known = Geometry.of_conv(geometry.y_shape, geometry.weight_shape, **keywords)
        channels = geometry.in_channels if letter == "x" else geometry.out_channels
        shape = (batch, channels, *sizes[: geometry.rank])
        found = resized(known, letter, shape)
        if not geometry.batched or geometry.data_format != "channels_first":
            assert found is None
            continue
        make = Geometry.of if letter == "x" else Geometry.of_conv
        try:
            expected = make(shape, geometry.weight_shape, **keywords | {"output_padding": extra})
        except ShapeError:
            expected = None
        assert found == expected


@draws()
@given(geometries())
def test_x_y_and_the_kernel_size_say_all(geometry):
    for extra in (geometry.axes[0].extra, 0):  # y's size says it in any case
        keywords = keywords_of(geometry)
        if not extra:
            keywords["output_padding"] = 0
        again = Geometry.of_weight_gradient(
            geometry.x_shape, geometry.y_shape, geometry.kernel_size, **keywords
        )
        assert again == geometry


@draws()
@given(geometries())
def test_a_convolution_leaves_over_less_than_a_stride(geometry):
    keywords = keywords_of(geometry) | {"output_padding": 0}
    found = Geometry.of_conv(geometry.y_shape, geometry.weight_shape, **keywords)
    for axis, same in zip(found.axes, geometry.axes, strict=True):
        assert 0 <= axis.extra < axis.stride
        assert axis.law == axis.output == same.output
        assert axis.input >= same.input


@draws()
@given(geometries())
def test_the_shapes_hold_the_sizes(geometry):
    last, batched = geometry.data_format == "channels_last", geometry.batched
    for shape, channels, spatial in (
        (geometry.x_shape, geometry.in_channels, geometry.input_size),
        (geometry.y_shape, geometry.out_channels, geometry.output_size),
    ):
        core = (*spatial, channels) if last else (channels, *spatial)
        assert shape == ((geometry.batch, *core) if batched else core)
    pairs = geometry.in_channels * geometry.out_channels // geometry.groups
    assert prod(geometry.weight_shape) == pairs * prod(geometry.kernel_size)


@draws()
@given(geometries(ranks=(1, 2)))
def test_the_unrolled_indices_are_the_entries_of_the_law(geometry):
    entries = set()
    for i in np.ndindex(geometry.input_size):
        for k in np.ndindex(geometry.kernel_size):
            o = tuple(
                at * axis.stride - axis.begin + tap * axis.dilation
                for at, tap, axis in zip(i, k, geometry.axes, strict=True)
            )
            if all(0 <= at < axis.output for at, axis in zip(o, geometry.axes, strict=True)):
                flat = [
                    int(np.ravel_multi_index(at, size))
                    for at, size in zip(
                        (i, k, o),
                        (geometry.input_size, geometry.kernel_size, geometry.output_size),
                        strict=True,
                    )
                ]
                entries.add(tuple(flat))
    found = list(zip(*(each.tolist() for each in geometry.unrolled_indices()), strict=True))
    assert set(found) == entries
    assert len(found) == len(entries)
    rows_and_columns = [(i, o) for i, _, o in found]
    assert rows_and_columns == sorted(rows_and_columns)


@draws(0.2)
@given(geometries())
def test_terms_bound_how_many_products_meet_in_one_number(geometry):
    i, k, o = geometry.unrolled_indices()
    group = (geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups)
    for want, cells, others in (("y", o, group[0]), ("x", i, group[1]), ("w", k, geometry.batch)):
        most = np.bincount(cells).max() if len(cells) else 0
        assert most * others <= geometry.terms(want)


def test_terms_are_counted_per_group():
    geometry = Geometry.of((3, 8, 5, 5), (8, 2, 3, 4), groups=4)
    assert [geometry.terms(want) for want in "yxw"] == [12 * 2, 12 * 2, 3 * 25]


def test_terms_of_y_are_those_of_the_phase_that_has_most():
    for stride, dilation, taps in ((2, 1, 2), (3, 1, 1), (2, 2, 3), (4, 2, 2)):
        geometry = Geometry.of((1, 5, 9), (5, 2, 3), stride=stride, dilation=dilation)
        assert geometry.terms("y") == 5 * taps
    assert Geometry.of((1, 5, 2), (5, 2, 9)).terms("y") == 5 * 2  # no more than cells of x


@draws(0.2)
@given(geometries())
def test_a_geometry_travels(geometry):
    geometry.y_shape  # noqa: B018 - fills a cache, which must not travel as a difference
    for again in (pickle.loads(pickle.dumps(geometry)), copy.deepcopy(geometry)):
        assert again == geometry
        assert again.y_shape == geometry.y_shape


def test_a_geometry_is_frozen():
    geometry = Geometry.of((1, 1, 4), (1, 1, 3))
    with pytest.raises(AttributeError):
        geometry.groups = 2


def test_sizes_are_pythons_integers_of_any_size():
    geometry = Geometry.of((1, 1, 2**63), (1, 1, 3), stride=2**63)
    assert geometry.y_shape == (1, 1, (2**63 - 1) * 2**63 + 3)
    assert geometry.flops == 2 * 2**63 * 3


def test_x_and_y_of_different_calls_are_refused():
    with pytest.raises(ShapeError, match="one and the same transposed convolution"):
        Geometry.of_weight_gradient((2, 1, 4), (3, 1, 6), 3)


@pytest.mark.parametrize("letter", ["z", None, [], np.ones(2), 3])
def test_a_letter_is_one_of_three(letter):
    geometry = Geometry.of((1, 2, 4), (2, 3, 3))
    for ask in (geometry.shape_of, geometry.terms):
        with pytest.raises(ParameterError, match=r" must be one of 'x', 'w', 'y'; "):
            ask(letter)


@pytest.mark.parametrize("shape", [3, None, "abc", {1: 2}, [1] * 65, range(2**60)])
def test_a_shape_is_a_sequence_of_sizes(shape):
    with pytest.raises(ParameterError, match=r"^x_shape=.* must"):
        Geometry.of(shape, (1, 1, 3))


@pytest.mark.parametrize("rank", [1, 30, 62])
def test_sizes_of_128_bits_can_be_written(rank):
    large = [2**128 - 1] * rank
    with pytest.raises(MemoryLimitError, match=r"^unrolled_indices needs [\d,]+ bytes"):
        Geometry.of((1, 1, *large), (1, 1, *[1] * rank)).unrolled_indices()


def test_a_data_format_is_a_word():
    for shape, kernel in (((1, 1, 4), 3), ((1, 4, 1), 3)):
        with pytest.raises(ParameterError, match=r"^data_format=array"):
            Geometry.of_weight_gradient(shape, shape, kernel, data_format=np.ones(2))
