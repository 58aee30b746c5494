"""Exceptions of tconv, each also the built-in exception that a caller would expect.

A message reads ``argument[axis]=value must <rule with the other values>; <what to do>``.
"""

__all__ = [
    "DTypeError",
    "MemoryLimitError",
    "ModelError",
    "OutputSizeError",
    "ParameterError",
    "RuleError",
    "ShapeError",
    "TConvError",
    "UnsupportedError",
]


class TConvError(Exception):
    """Base class of all errors of tconv.

    >>> issubclass(ShapeError, TConvError) and issubclass(ShapeError, ValueError)
    True
    """


class ParameterError(TConvError, ValueError):
    """One argument breaks its own rule, whatever the other arguments are.

    >>> tconv.output_shape((1, 1, 4), (1, 1, 3), stride=0)
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: stride[0]=0 must be at least 1; pass a positive integer.
    """


class ShapeError(TConvError, ValueError):
    """The sizes of two or more arguments do not fit together.

    >>> tconv.output_shape((1, 2, 4), (3, 1, 3))
    Traceback (most recent call last):
    ...
    tconv.errors.ShapeError: x has 2 channels but weight of shape (3, 1, 3) (weight_format="IO*", \
groups=1) takes 3; pass x with 3 channels or another weight.
    """


class OutputSizeError(ShapeError):
    """The wanted size cannot be reached with the other arguments.

    >>> tconv.output_shape((1, 1, 4), (1, 1, 3), stride=2, output_size=12)
    Traceback (most recent call last):
    ...
    tconv.errors.OutputSizeError: output_size[0]=12 cannot be reached from input size 4 with \
kernel 3, stride 2, dilation 1, padding (0, 0): \
reachable are 9 to 10; for 12 pass padding=((-2, -1),).
    """


class DTypeError(TConvError, TypeError):
    """An operand is not an array, or not of a type the operation is defined for.

    >>> tconv.conv_transpose(np.ones((1, 1, 2), bool), np.ones((1, 1, 2), bool))
    Traceback (most recent call last):
    ...
    tconv.errors.DTypeError: x has dtype bool, which has no transposed convolution; \
pass dtype= to convert the operands, for example dtype="float32".
    """


class MemoryLimitError(TConvError, MemoryError):
    """The call would need more memory than ``max_bytes`` allows; nothing was allocated.

    >>> tconv.conv_transpose(np.ones((1, 1, 8)), np.ones((1, 1, 3)), stride=100, max_bytes=1000)
    Traceback (most recent call last):
    ...
    tconv.errors.MemoryLimitError: conv_transpose needs ... bytes (output 5,624, workspace and \
packed weights ...) but max_bytes=1,000; lower the sizes, split the batch or raise max_bytes.
    """


class UnsupportedError(TConvError, NotImplementedError):
    """The request is sound but this array library or build cannot fulfil it.

    >>> issubclass(UnsupportedError, NotImplementedError)
    True
    """


class ModelError(TConvError, RuntimeError):
    """A model cannot be read, or ONNX Runtime refuses to load or to run it.

    >>> issubclass(ModelError, RuntimeError)
    True
    """


class RuleError(UnsupportedError):
    """A rule of `see` has no reversal for a node between the layer and the image.

    >>> issubclass(RuleError, UnsupportedError)
    True
    """
