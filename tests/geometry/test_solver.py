"""Laws of the solver: every row fits, none is missing, the best come first."""

from hypothesis import given
from hypothesis import strategies as st

from strategies import draws
from tconv.geometry.axis import Axis
from tconv.geometry.geometry import Geometry
from tconv.geometry.solver import solve, solve_beyond

sizes = st.integers(1, 12)
maybe = st.none() | st.integers(1, 5)


@draws(0.1)  # each looks through some thousand settings
@given(sizes, sizes, st.sampled_from(["input", "output", "both"]), maybe, maybe, st.integers(1, 4))
def test_the_rows_are_those_that_fit(size, other, given_sizes, kernel, stride, dilation):
    wanted = {"kernel_size": kernel, "stride": stride, "dilation": dilation}
    if given_sizes != "output":
        wanted["input_size"] = size
    if given_sizes != "input":
        wanted["output_size"] = other if given_sizes == "both" else size
    rows = solve(**wanted, limit=100_000)
    expected = set()
    for k in range(1, 17) if kernel is None else (kernel,):
        for s in range(1, 17) if stride is None else (stride,):
            for pad in range(k + 1):
                for extra in range(max(s, dilation)):
                    axis = Axis(1, k, 0, s, dilation, pad, pad, extra)
                    if given_sizes == "output":
                        steps, rest = divmod(size - axis.law, s)
                        if steps >= 0 and not rest:
                            expected.add((steps + 1, size, k, s, pad, extra))
                    else:
                        law = axis._replace(input=size).law
                        if law >= 1 and wanted.get("output_size", law) == law:
                            expected.add((size, law, k, s, pad, extra))
    assert {row[:6] for row in rows} == expected
    assert len(rows) == len(expected)


@draws(0.2)
@given(sizes, st.none() | sizes, maybe, maybe, st.integers(1, 3), st.integers(1, 30))
def test_the_first_rows_are_the_best(size, output, kernel, stride, dilation, limit):
    wanted = {"input_size": size, "output_size": output, "kernel_size": kernel}
    wanted |= {"stride": stride, "dilation": dilation}
    rows = solve(**wanted, limit=limit)
    assert rows == solve(**wanted, limit=100_000)[:limit]
    merits = [(not row.even, row.kernel_size, row.output_padding) for row in rows]
    assert merits == sorted(merits)


@draws(0.2)
@given(sizes, sizes, maybe, st.tuples(st.integers(-3, 3), st.integers(-3, 3)))
def test_every_row_is_a_call(size, kernel, stride, padding):
    wanted = {"kernel_size": kernel, "stride": stride, "padding": padding}
    for row in solve(input_size=size, **wanted, limit=5) + solve(output_size=size, **wanted):
        pairs = row.padding if isinstance(row.padding, tuple) else (row.padding, row.padding)
        assert pairs == padding
        geometry = Geometry.of(
            (1, 1, row.input_size),
            (1, 1, row.kernel_size),
            stride=row.stride,
            padding=(pairs,),
            output_padding=row.output_padding,
            dilation=row.dilation,
        )
        assert geometry.output_size == (row.output_size,)
        assert (geometry.axes[0].taps_per_phase, geometry.axes[0].even) == (
            row.taps_per_phase,
            row.even,
        )


def test_all_settings_given_tells_the_sizes():
    assert [row.output_size for row in solve(input_size=4, kernel_size=3, stride=2, padding=1)] == [
        7,
        8,
    ]
    assert [row.input_size for row in solve(output_size=8, kernel_size=3, stride=2, padding=1)] == [
        4
    ]
    two_inputs = solve(output_size=7, kernel_size=3, stride=1, padding=0, dilation=2)
    assert [(row.input_size, row.output_padding) for row in two_inputs] == [(3, 0), (2, 1)]
    assert solve(input_size=4, output_size=4, kernel_size=1, stride=9) == []


def test_huge_numbers_are_only_numbers():
    huge = 2**63
    assert solve(input_size=huge, output_size=2 * huge, kernel_size=2)[0].stride == 2
    assert solve(input_size=4, kernel_size=huge, stride=1)[0].output_size == huge + 3
    assert solve(input_size=1, kernel_size=1, stride=huge, padding=huge) == []
    assert solve(output_size=huge, kernel_size=huge, stride=huge)[0].input_size == 1
    assert len(solve(input_size=4, stride=huge, limit=1000)) == 1000
    assert len(solve(output_size=huge, dilation=huge, limit=1000)) == 1000


@given(
    st.integers(1, 30),
    st.integers(1, 400),
    st.none() | st.integers(1, 20),
    st.none() | st.integers(1, 20),
    st.none() | st.integers(0, 5),
    st.integers(1, 3),
)
def test_beyond_its_bounds_rows_keep_the_law(size, wanted, kernel, stride, padding, dilation):
    rows = solve_beyond(
        input_size=size,
        output_size=wanted,
        kernel_size=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    for row in rows:
        pads = (row.padding, row.padding) if isinstance(row.padding, int) else row.padding
        assert (row.input_size, row.output_size, row.dilation) == (size, wanted, dilation)
        assert kernel in (None, row.kernel_size)
        assert stride in (None, row.stride)
        assert padding is None or pads == (padding, padding)
        full = (size - 1) * row.stride + dilation * (row.kernel_size - 1) + 1
        assert full - sum(pads) + row.output_padding == wanted
        assert 0 <= row.output_padding < max(row.stride, dilation)
        assert min(pads) >= 0
    assert len({(row.kernel_size, row.stride) for row in rows}) == len(rows)
    if padding is None and (kernel is None or stride is None):
        assert rows  # a kernel or a stride as long as it takes
