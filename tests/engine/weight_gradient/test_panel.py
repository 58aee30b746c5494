"""k-blocks cover the cells of x; a panel has every cell of y that one reads, or a zero."""

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, geometries
from tconv.engine.plan.phases import as_three
from tconv.engine.weight_gradient.panel import Panel, Reach, ReductionBlock


@draws(1)
@given(st.lists(st.integers(1, 9), min_size=4, max_size=4), st.integers(1, 300))
def test_a_k_block_is_whole_in_all_axes_but_one(sizes, cells):
    k_block = ReductionBlock.of(sizes[0], sizes[1:], cells)
    assert k_block.cells == prod(k_block) <= cells
    first = next((n for n, size in enumerate(k_block) if size > 1), 3)
    assert k_block[first + 1 :] == tuple(sizes[first + 1 :])
    assert all(1 <= size <= whole for size, whole in zip(k_block, sizes, strict=True))


@draws(1)
@given(geometries(ranks=(1, 2, 3)), st.booleans())
def test_cells_and_taps_meet_where_the_law_says(geometry, is_parted):
    for axis in geometry.axes:
        reach = Reach.of(axis, is_parted)
        for i, k in product(range(axis.input), range(axis.kernel)):
            residue_class, place = reach.taps[k]
            assert reach.low <= place <= reach.high
            found = (i * reach.spacing + place) * reach.step + reach.residue_classes[residue_class]
            assert found == i * axis.stride - axis.begin + k * axis.dilation
        assert reach.spacing == 1 or not is_parted


@draws(1)
@given(geometries(ranks=(1, 2, 3), batches=(1, 2, 3)), st.booleans(), st.integers(1, 40), st.data())
def test_a_panel_holds_the_cells_that_a_k_block_reads(geometry, is_dot, cells, data):
    """Filled as the driver does, image by image and row by row, in the order of the panel."""
    size = [axis.input for axis in as_three(geometry.axes)]
    k_block = ReductionBlock.of(geometry.batch, size, cells)
    panel = Panel.of(geometry.axes, k_block, 8, is_dot)
    steps = [
        (count - 1) // some for count, some in zip((geometry.batch, *size), k_block, strict=True)
    ]
    first = [data.draw(st.integers(0, step)) * n for step, n in zip(steps, k_block, strict=True)]
    memory = filled(panel, first)
    counts = (
        min(some, count - start)
        for some, count, start in zip(k_block, (geometry.batch, *size), first, strict=True)
    )
    taps, lanes = panel.taps(), panel.places().reshape(k_block)
    for cell in product(*(range(count) for count in counts)):
        image, *place = (a + b for a, b in zip(first, cell, strict=True))
        for n, tap in enumerate(product(*(range(len(r.taps)) for r in panel.reaches))):
            met = [met_by(*each) for each in zip(panel.reaches, place, tap, strict=True)]
            within = all(0 <= o < r.size for o, r in zip(met, panel.reaches, strict=True))
            expected = name_of(image, met, panel) if within else 0
            assert memory[taps[n] + lanes[cell]] == expected


def met_by(reach, i, k):
    residue_class, place = reach.taps[k]
    return (i * reach.spacing + place) * reach.step + reach.residue_classes[residue_class]


def name_of(image, place, panel):
    """A number for a cell of y that no other cell has."""
    found = image
    for o, reach in zip(place, panel.reaches, strict=True):
        found = found * reach.size + o
    return found + 1


def filled(panel, first):
    """A panel of a channel whose first cells are those of the k-block that begins at `first`."""
    memory = np.zeros(panel.cells + panel.room, np.int64)
    images, *sizes = panel.size
    residue_classes = product(*(reach.residue_classes for reach in panel.reaches))
    for n, of_class in enumerate(residue_classes):
        for index in product(range(images), *map(range, sizes)):
            place = []
            for r, start, at, begin in zip(
                panel.reaches, of_class, index[1:], first[1:], strict=True
            ):
                place.append((begin * r.spacing + r.low + at) * r.step + start)
            if all(0 <= o < r.size for o, r in zip(place, panel.reaches, strict=True)):
                flat = np.ravel_multi_index(index, panel.size)
                memory[n * panel.residue_class_cells + flat] = name_of(
                    first[0] + index[0], place, panel
                )
    return memory


@pytest.mark.parametrize("is_dot", [True, False])
def test_residue_classes_that_nothing_meets_are_left_out(is_dot):
    (axis,) = [Reach.of(as_three(())[0], is_dot)]
    assert axis.residue_classes == (0,)
