"""Verb `shape`: the output size of settings, or settings for an output size."""

from argparse import Namespace
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

from tconv.cli.console import Answer, at_named_argument
from tconv.cli.options import UsageError
from tconv.geometry.arguments import as_per_axis
from tconv.geometry.axis import Axis
from tconv.geometry.conventions import Convention, conventions
from tconv.geometry.geometry import Geometry
from tconv.geometry.solver import Solution, solve, solve_beyond
from tconv.tables import Column, Table

__all__ = ["answer"]

_MOST = 100_000  # solutions of one axis
_LAW = "out = (in - 1)*s + d*(k - 1) + 1 - p_begin - p_end + op"
_PLACES = {
    "input_size": "IN, the input size",
    "output_size": "option --to",
    "kernel_size": "option -k/--kernel",
    "stride": "option -s/--stride",
    "padding": "option -p/--padding",
    "dilation": "option -d/--dilation",
    "output_padding": "option --op/--output-padding",
}
"""Names of arguments with which tconv's messages begin, and the places of their options."""

Size = tuple[int, ...]
Solutions = tuple[Solution, ...]  # one per axis


def answer(options: Namespace) -> Answer:
    """Show the output size, or with ``--to`` the settings that give an output size.

    >>> from tconv.cli.options import parser_of
    >>> line = parser_of("shape").parse_args("4 -k 3 -s 2 --rank 1".split())
    >>> print(answer(line).parts[0])
    4 → 9
    out = (in - 1)*s + d*(k - 1) + 1 - p_begin - p_end + op
    """
    rank = _rank(options)
    with at_named_argument(_PLACES):
        if options.to is None:
            return _forward(options, rank)
        return _candidates(options, rank)


def _rank(options: Namespace) -> int:
    """Return the number of axes: --rank, else the most that any option lists, else 2."""
    given = {
        "IN": options.input_size,
        "-k": options.kernel,
        "-s": options.stride,
        "-p": options.padding if isinstance(options.padding, tuple) else None,
        "-d": options.dilation,
        "--op": options.op,
        "--to": options.to,
    }
    lengths = {name: len(sizes) for name, sizes in given.items() if sizes and len(sizes) > 1}
    if options.rank:
        lengths["--rank"] = options.rank
    longest = max(lengths, key=lambda name: lengths[name], default="")
    decides = "--rank" if options.rank else longest
    for name, length in lengths.items():
        if length != lengths[decides]:
            raise UsageError(
                f"{name} is for {length} axes, but {decides} for {lengths[decides]}",
                f"tconv shape, {name}",
                f"give one value for all axes, or {lengths[decides]}",
            )
    return lengths.get(decides, 2)


# ---- output size of settings ---------------------------------------------------------------------


def _forward(options: Namespace, rank: int) -> Answer:
    if options.kernel is None or options.limit is not None:
        missing = options.kernel is None
        raise UsageError(
            "-k/--kernel is missing" if missing else "--limit needs --to",
            "tconv shape",
            "give the kernel size, as in tconv shape 64 -k 4 -s 2, or the wanted size by --to"
            if missing
            else "leave --limit out, or name the wanted size by --to",
        )
    if options.op is not None and isinstance(options.padding, str):
        raise UsageError(
            f"--op does not go with -p {options.padding}, which sets the output size itself",
            "option --op/--output-padding",
            "leave one of them out, or give the padding as a number",
        )
    kernel = as_per_axis(options.kernel, "kernel_size", rank, 1)
    geometry = Geometry.of(
        (1, 1, *as_per_axis(options.input_size, "input_size", rank, 1)),
        (1, 1, *kernel),
        stride=options.stride or 1,
        padding=0 if options.padding is None else options.padding,
        output_padding=options.op or 0,
        dilation=options.dilation,
    )
    axes = geometry.axes
    rows = conventions(axes)
    headline = f"{_sizes(geometry.input_size)} → {_sizes(geometry.output_size)}\n{_LAW}"
    overlap = _overlap(axis.taps_per_phase for axis in axes)
    result = {
        "input_size": geometry.input_size,
        "output_size": geometry.output_size,
        "axes": [
            {**axis._asdict(), "taps_per_phase": axis.taps_per_phase, "even": axis.even}
            for axis in axes
        ],
        "formula": [_formula(axis) for axis in axes],
        "even": all(axis.even for axis in axes),
        "overlap": overlap,
        "conventions": [row._asdict() for row in rows],
    }
    return Answer((headline, _axes_table(axes), _conventions_table(rows)), result)


def _axes_table(axes: Sequence[Axis]) -> Table:
    """One row for each axis, or a single row if all axes are equal."""
    alike = len(set(axes)) == 1 and len(axes) > 1
    names = ("all",) if alike else tuple(str(n) for n in range(len(axes)))
    rows = tuple(
        (name, _formula(axis), str(axis.output), _taps(axis.taps_per_phase), _overlap_word(axis))
        for name, axis in zip(names, axes, strict=False)
    )
    columns = (
        Column("axis"),
        Column("with numbers", folds=True),
        Column("out", right=True),
        Column("taps/phase"),
        Column("overlap"),
    )
    fewest, most = (prod(axis.taps_per_phase[end] for axis in axes) for end in (0, 1))
    taps = f"{most} taps reach every" if fewest == most else f"{fewest} to {most} taps reach a"
    taps = "1 tap reaches every" if fewest == most == 1 else taps
    overlap = _overlap(axis.taps_per_phase for axis in axes)
    footer = f"overlap {overlap}: away from the border {taps} cell"
    good = tuple(axis.even for axis, _ in zip(axes, rows, strict=False))
    return Table(columns, rows, footer, accent=4, good=good)


def _conventions_table(rows: Iterable[Convention]) -> Table:
    columns = (
        Column("library"),
        Column('"valid"', right=True),
        Column('"same"', right=True),
        Column("this padding", right=True),
        Column("its arguments", folds=True),
    )
    return Table(
        columns,
        tuple(
            (row.library, *map(_sizes, (row.valid, row.same, row.this)), row.arguments or "–")
            for row in rows
        ),
    )


def _formula(axis: Axis) -> str:
    """The size law with the axis's numbers."""
    return (
        f"({axis.input} - 1)*{axis.stride} + {axis.dilation}*({axis.kernel} - 1) + 1"
        f"{_minus(axis.begin)}{_minus(axis.end)} + {axis.extra}"
    )


def _minus(number: int) -> str:
    return f" - {number}" if number >= 0 else f" + {-number}"


# ---- settings for an output size -----------------------------------------------------------------


def _candidates(options: Namespace, rank: int) -> Answer:
    if options.op is not None:
        raise UsageError(
            "--op does not go with --to, which finds it",
            "option --op/--output-padding",
            "leave --op out",
        )
    if isinstance(options.padding, str):
        raise UsageError(
            f"-p {options.padding} does not go with --to, which compares numbers",
            "option -p/--padding",
            "give the padding as a number, or leave it out",
        )
    inputs = as_per_axis(options.input_size, "input_size", rank, 1)
    outputs = as_per_axis(options.to, "output_size", rank, 1)
    given = [_given(options, n) for n in range(rank)]
    free = [name for name in ("kernel_size", "stride", "padding") if name not in given[0]]
    found = [
        solve(input_size=i, output_size=o, limit=_MOST, **settings)
        for i, o, settings in zip(inputs, outputs, given, strict=True)
    ]
    joint = _joint(found, free) or _joint(found, free[:-1] if "padding" in free else free)
    if not joint and not all(found):
        found = [
            rows or solve_beyond(input_size=i, output_size=o, **settings)
            for rows, i, o, settings in zip(found, inputs, outputs, given, strict=True)
        ]
        joint = _joint(found, [name for name in free if name != "padding"])
    joint = joint[: options.limit or 20]
    result = {
        "input_size": inputs,
        "output_size": outputs,
        "candidates": [_as_dict(rows) for rows in joint],
        "nearest": None,
    }
    if joint:
        return Answer((_candidates_table(joint),), result)
    if all(found):
        return Answer((_per_axis_only(inputs, outputs, found, free),), result, 1)
    nearest = [_nearest(*of_axis) for of_axis in zip(inputs, outputs, given, strict=True)]
    several = len(set(zip(inputs, outputs, strict=True))) > 1
    lines = [
        _nothing_fits(
            f" on axis {n}" if several else "", inputs[n], outputs[n], nearest[n], given[n]
        )
        for n in range(rank)
        if not found[n]
    ]
    return Answer(("\n".join(dict.fromkeys(lines)),), {**result, "nearest": nearest}, 1)


def _joint(found: list[list[Solution]], same: list[str]) -> list[Solutions]:
    """Combine solutions of all axes that have the settings `same` in common."""
    by_key: list[dict[tuple[Any, ...], Solution]] = []
    for rows in found:
        by_key.append({})
        for row in rows:  # the best one comes first
            by_key[-1].setdefault(tuple(getattr(row, name) for name in same), row)
    keys = [key for key in by_key[0] if all(key in rows for rows in by_key)]
    joint = [tuple(rows[key] for rows in by_key) for key in keys]
    return sorted(joint, key=lambda rows: not all(row.even for row in rows))


def _given(options: Namespace, n: int) -> dict[str, Any]:
    """Return the given settings of axis n."""
    typed = {
        "kernel_size": options.kernel,
        "stride": options.stride,
        "padding": options.padding,
        "dilation": options.dilation,
    }
    return {
        name: value[n if len(value) > 1 else 0]
        for name, value in typed.items()
        if value is not None
    }


def _nearest(size: int, wanted: int, given: dict[str, Any]) -> list[int]:
    """Return the closest possible output sizes below and above the wanted one."""
    reached = {row.output_size for row in solve(input_size=size, limit=_MOST, **given)}
    if "stride" not in given:  # strides near the ratio of the sizes, which may exceed the search
        likely = wanted // size
        for stride in range(max(likely - 1, 1), likely + 3):
            rows = solve(input_size=size, limit=_MOST, stride=stride, **given)
            reached |= {row.output_size for row in rows}
    below = [o for o in reached if o < wanted]
    above = [o for o in reached if o > wanted]
    return ([max(below)] if below else []) + ([min(above)] if above else [])


def _nothing_fits(
    axis: str, size: int, wanted: int, nearest: list[int], given: dict[str, Any]
) -> str:
    """Say that no settings fit, which sizes are closest, and which padding would give the size."""
    line = f"This does not take {size} to {wanted}{axis}"
    if nearest:
        many = len(nearest) > 1
        sizes = "sizes that can be reached are" if many else "size that can be reached is"
        line += f"; the nearest {sizes} {' and '.join(map(str, nearest))}"
    if "padding" in given:
        return f"{line}."
    k, s, d = given["kernel_size"], given["stride"], given["dilation"]
    most = max(s, d) - 1  # output_padding; padding must give the rest
    rest = wanted - Axis(size, k, wanted, s, d).full - most
    extra = most - rest % 2 if most else 0
    rest += most - extra
    pad = f"{-(rest // 2)}" if rest % 2 == 0 else f"{-(rest // 2)}:{rest // 2 - rest}"
    op = f" --op {extra}" if extra else ""
    return f"{line}. Negative padding adds cells that hold the bias alone: -p={pad}{op}."


def _per_axis_only(
    inputs: Size, outputs: Size, found: list[list[Solution]], free: list[str]
) -> str:
    """Say that every axis needs settings of its own, with an example."""
    rows = [rows[0] for rows in found]
    texts = {
        "-k": [str(row.kernel_size) for row in rows if "kernel_size" in free],
        "-s": [str(row.stride) for row in rows if "stride" in free],
        "-p": [_padding(row.padding) for row in rows if "padding" in free],
        "--op": [str(row.output_padding) for row in rows],
    }
    words = (f"{name} {_each(each)}" for name, each in texts.items() if set(each) - {"0"})
    return (
        f"No settings that are the same on every axis take {_sizes(inputs)} to {_sizes(outputs)}; "
        f"with settings per axis it can be reached, for example {' '.join(words)}."
    )


def _candidates_table(joint: list[Solutions]) -> Table:
    columns = (
        Column("k", right=True),
        Column("s", right=True),
        Column("p", right=True),
        Column("op", right=True),
        Column("taps/phase"),
        Column("overlap"),
        Column("note", folds=True),
    )
    return Table(
        columns,
        tuple(
            (
                _each(str(row.kernel_size) for row in rows),
                _each(str(row.stride) for row in rows),
                _each(_padding(row.padding) for row in rows),
                _each(str(row.output_padding) for row in rows),
                _each(_taps(row.taps_per_phase) for row in rows),
                _overlap(row.taps_per_phase for row in rows),
                _note(rows),
            )
            for rows in joint
        ),
        accent=5,
        good=tuple(all(row.even for row in rows) for rows in joint),
    )


def _note(rows: Solutions) -> str:
    notes = []
    if all(r.kernel_size == r.stride > 1 and r.dilation == 1 and r.padding == 0 for r in rows):
        notes.append("no overlap (≡ 1×1 conv + pixel shuffle)")
    if all(
        r.kernel_size == 2 * r.stride - r.stride % 2
        and r.stride > 1
        and r.padding == r.stride // 2
        and r.dilation == 1
        and not r.output_padding
        for r in rows
    ):
        notes.append("common choice; bilinear fits")
    if any(_is_far(row) for row in rows):
        notes.append("crops more than the kernel")
    if any(row.output_padding for row in rows):
        notes.append("needs output_padding")
    return "; ".join(notes)


def _is_far(row: Solution) -> bool:
    """Whether padding is beyond the range that `solve` searches."""
    pads = (row.padding,) if isinstance(row.padding, int) else row.padding
    return max(pads) > row.kernel_size


def _as_dict(rows: Solutions) -> dict[str, Any]:
    """Return one list per field, with an entry for every axis."""
    fields = [row._asdict() for row in rows]
    entry: dict[str, Any] = {name: [f[name] for f in fields] for name in fields[0]}
    return {**entry, "even": all(entry["even"]), "note": _note(rows)}


# ---- texts ---------------------------------------------------------------------------------------


def _taps(taps: tuple[int, int]) -> str:
    fewest, most = taps
    return str(most) if fewest == most else f"{fewest}–{most}"


def _overlap(taps: Iterable[tuple[int, int]]) -> str:
    """Return "even", or the ratio of the most to the fewest taps that reach a cell."""
    counts = list(taps)
    if all(fewest == most for fewest, most in counts):
        return "even"
    if any(fewest == 0 for fewest, _ in counts):
        return "uneven, gaps"
    return f"uneven {prod(most / fewest for fewest, most in counts):.3g}×"


def _overlap_word(axis: Axis) -> str:
    return _overlap([axis.taps_per_phase])


def _padding(padding: int | tuple[int, int]) -> str:
    return str(padding) if isinstance(padding, int) else f"{padding[0]}:{padding[1]}"


def _each(texts: Iterable[str]) -> str:
    """Return one text if all axes agree, else all of them joined by "x"."""
    parts = list(texts)
    return parts[0] if len(set(parts)) == 1 else "x".join(parts)


def _sizes(size: Size | None) -> str:
    return "–" if size is None else "x".join(map(str, size))
