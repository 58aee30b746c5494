"""Results of a run: the file that takes them, and what the report says of them."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from tconv.cli.feeds import Source
from tconv.cli.outputs import Output

__all__ = ["described", "output_of", "verdict_of", "written"]


def output_of(
    options: Namespace, given: Sequence[Source], *, is_chosen: bool = True
) -> Output | None:
    """The file that the options name, which may be written.

    --output-name chooses what it takes, unless the results are already those that it names.
    """
    if options.output is None:
        return None
    protected = (options.model, *(source.path for source in given), *options.inputs)
    return Output(
        options.output,
        options.force,
        options.output_name if is_chosen else None,
        options.norm,
        protected,
        options.sample_rate,
    )


def written(
    output: Output | None,
    arrays: Mapping[str, NDArray[Any]],
    chosen: str | None,
    time_axes: Mapping[str, int] | None = None,
) -> tuple[str, ...]:
    """Write the chosen outputs, and return a line that names them."""
    if output is None:
        return ()
    output.write(arrays, chosen, time_axes)
    names = [each["name"] for each in described(arrays) if chosen in (None, each["name"])]
    return (f"wrote {', '.join(names)} to {output.describe()}",)


def verdict_of(options: Namespace, largest: float) -> tuple[int, tuple[str, ...]]:
    """Hold the largest difference of a comparison against --max-difference: exit code, a line."""
    limit = options.max_difference
    if limit is None:
        return 0, ()
    too_far = not largest <= limit  # NaN is too far
    how = "above" if too_far else "within"
    return int(too_far), (f"largest difference {largest:.3g}, {how} --max-difference {limit:g}",)


def described(arrays: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name, shape and type of every output; one that is no array has no shape."""
    return [
        {
            "name": name,
            "shape": getattr(array, "shape", None),
            "dtype": str(getattr(array, "dtype", type(array).__name__)),
        }
        for name, array in arrays.items()
    ]
