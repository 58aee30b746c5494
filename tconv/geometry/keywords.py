"""Keywords of `conv_transpose` that other functions take too: names, types and defaults.

Type checkers and editors read them from ``**keywords: Unpack[SizeKeywords]`` (PEP 692). `help`, by
`tconv.signatures`, and the documentation, by ``docs/docstrings.py``, show the defaults as well.
"""

from typing import Annotated, Any, TypedDict

from tconv.geometry.arguments import Padding, PerAxis

__all__ = ["SizeKeywords", "TransposeKeywords", "VolumeKeywords"]


class SizeKeywords(TypedDict, total=False):
    """Sizes and layouts. Each entry is ``Annotated[type, default]``; a quoted type is an alias."""

    stride: Annotated["PerAxis", 1]
    padding: Annotated["Padding", 0]
    output_padding: Annotated["PerAxis", 0]
    dilation: Annotated["PerAxis", 1]
    groups: Annotated[int, 1]
    data_format: Annotated[str, "channels_first"]
    weight_format: Annotated[str, "IO*"]
    flip_kernel: Annotated[bool, False]


class TransposeKeywords(SizeKeywords, total=False):
    """Those of `conv_transpose` but for dtype and out."""

    output_size: Annotated["PerAxis | None", None]
    padding_mode: Annotated[str, "zeros"]
    method: Annotated[str, "auto"]
    threads: Annotated[int | None, None]
    max_bytes: Annotated[int | None, None]


class VolumeKeywords(SizeKeywords, total=False):
    """Those that volumes take, with the defaults of volumes."""

    output_size: Annotated["PerAxis | None", None]
    input_size: Annotated["PerAxis | None", None]
    dtype: Annotated[Any, None]
    method: Annotated[str, "direct"]
    threads: Annotated[int | None, 1]
