"""Messages of wrong calls: the class and the whole text, and that the remedy in it works.

Every message names the argument, the values that clash, the rule and what to do. Where it proposes
a call that works, the table has that call as well. No wrong call may take long, allocate much, or
change an operand or `out`.
"""

import faulthandler
import re
import signal

import array_api_strict
import numpy as np
import pytest
from ml_dtypes import bfloat16
from numpy.lib.stride_tricks import as_strided

import tconv
from tconv.errors import (
    DTypeError,
    MemoryLimitError,
    OutputSizeError,
    ParameterError,
    ShapeError,
    TConvError,
    UnsupportedError,
)
from tconv.ops import dispatch

MOST_SECONDS = 10
# How much workspace a call needs depends on how blocks are chosen, so it is N here.
BYTES = re.compile(r"needs [\d,]+ bytes \((output [\d,]+), workspace and packed weights [\d,]+\)")
PUBLIC = {name: getattr(tconv, name) for name in tconv.__all__}


def arrays():
    """The arrays that the calls name: a call with x, w and b gives y."""
    read_only = np.ones((2, 3, 7))
    read_only.flags.writeable = False
    return {
        "x": np.ones((2, 4, 5)),
        "w": np.ones((4, 3, 3)),
        "y": np.ones((2, 3, 7)),
        "b": np.ones(3),
        "read_only": read_only,
        "repeated": as_strided(np.ones(7), (2, 3, 7), (0, 0, 8)),
        "sliding": as_strided(np.ones(42), (2, 3, 7), (40, 16, 8)),
    }


MODULES = {"np": np, "array_api_strict": array_api_strict, "bfloat16": bfloat16}

# The call, the class of its error, its message, and the call that the message proposes.
CALLS = {
    # ---- operands --------------------------------------------------------------------------------
    "conv_transpose(None, w)": (
        DTypeError,
        "x=None must be an array, not NoneType; pass a NumPy array or one of another array "
        "library.",
    ),
    "conv_transpose(x, None)": (
        DTypeError,
        "weight=None must be an array, not NoneType; pass a NumPy array or one of another "
        "array library.",
    ),
    "conv_transpose(None, None)": (
        DTypeError,
        "x=None must be an array, not NoneType; pass a NumPy array or one of another array "
        "library.",
    ),
    "conv(None, w)": (
        DTypeError,
        "y=None must be an array, not NoneType; pass a NumPy array or one of another array "
        "library.",
    ),
    "conv_weight_gradient(x, None, 3)": (
        DTypeError,
        "y=None must be an array, not NoneType; pass a NumPy array or one of another array "
        "library.",
    ),
    "conv_transpose('x', w)": (
        DTypeError,
        "x='x' must be an array, not str; pass a NumPy array or one of another array library.",
    ),
    "conv_transpose(x, {})": (
        DTypeError,
        "weight={} must be an array, not dict; pass a NumPy array or one of another array library.",
    ),
    "conv_transpose(x, w, 'b')": (
        DTypeError,
        "bias='b' must be an array, not str; pass a NumPy array or one of another array library.",
    ),
    "conv_transpose(x, w, len)": (
        DTypeError,
        "bias=<built-in function len> must be an array, not builtin_function_or_method; pass "
        "a NumPy array or one of another array library.",
    ),
    "conv_transpose([[1, 2], [3]], w)": (
        DTypeError,
        "x=[[1, 2], [3]] is not rectangular; pass nested lists of equal lengths.",
    ),
    "conv_transpose(x, [[[1, 2], [3]]])": (
        DTypeError,
        "weight=[[[1, 2], [3]]] is not rectangular; pass nested lists of equal lengths.",
    ),
    "conv_transpose([[['a']]], w)": (
        DTypeError,
        "x has dtype str32, which is no type of numbers; pass an array of integers, real or "
        "complex numbers.",
    ),
    "conv_transpose([[[None]]], w)": (
        DTypeError,
        "x has dtype object, which is no type of numbers; pass an array of integers, real or "
        "complex numbers.",
    ),
    "conv_transpose([[[2**70]]], w)": (
        DTypeError,
        "x has dtype object, which is no type of numbers; pass an array of integers, real or "
        "complex numbers.",
    ),
    "conv_transpose(x.astype(object), w)": (
        DTypeError,
        "x has dtype object, which is no type of numbers; pass an array of integers, real or "
        "complex numbers.",
    ),
    "conv_transpose(x.astype('M8[s]'), w)": (
        DTypeError,
        "x has dtype datetime64[s], which is no type of numbers; pass an array of integers, "
        "real or complex numbers.",
    ),
    "conv_transpose(x.astype(object), w, dtype='float64')": (
        DTypeError,
        "x has dtype object, which dtype=float64 cannot hold; convert x yourself in the way "
        "you mean.",
    ),
    "conv_transpose(x > 0, w > 0)": (
        DTypeError,
        "x has dtype bool, which has no transposed convolution; pass dtype= to convert the "
        'operands, for example dtype="float32".',
        "conv_transpose(x > 0, w > 0, dtype='float32')",
    ),
    "conv_transpose(x > 0, w)": (
        DTypeError,
        "x has dtype bool, which has no transposed convolution; pass dtype= to convert the "
        'operands, for example dtype="float64".',
        "conv_transpose(x > 0, w, dtype='float64')",
    ),
    "conv_transpose(x.astype('u8'), w.astype('u8'))": (
        DTypeError,
        "x has dtype uint64, which has no transposed convolution; pass dtype= to convert the "
        'operands, for example dtype="float64".',
        "conv_transpose(x.astype('u8'), w.astype('u8'), dtype='float64')",
    ),
    "conv_transpose(x.astype('f4'), w)": (
        DTypeError,
        "x has dtype float32 but weight has float64; pass dtype= to convert the operands, "
        'for example dtype="float64".',
        "conv_transpose(x.astype('f4'), w, dtype='float64')",
    ),
    "conv_transpose(x, w.astype(int))": (
        DTypeError,
        "x has dtype float64 but weight has int64; pass dtype= to convert the operands, for "
        'example dtype="float64".',
        "conv_transpose(x, w.astype(int), dtype='float64')",
    ),
    "conv_transpose(x.astype('F'), w)": (
        DTypeError,
        "x has dtype complex64 but weight has float64; pass dtype= to convert the operands, "
        'for example dtype="complex128".',
        "conv_transpose(x.astype('F'), w, dtype='complex128')",
    ),
    "conv_transpose(x.astype(bfloat16), w.astype('F'))": (
        DTypeError,
        "x has dtype bfloat16 but weight has complex64; pass dtype= to convert the operands, "
        'for example dtype="complex64".',
        "conv_transpose(x.astype(bfloat16), w.astype('F'), dtype='complex64')",
    ),
    "conv_transpose(x.astype('i1'), w.astype('u1'))": (
        DTypeError,
        "x has dtype int8 but weight has uint8; pass dtype= to convert the operands, for "
        'example dtype="int16".',
        "conv_transpose(x.astype('i1'), w.astype('u1'), dtype='int16')",
    ),
    "conv_transpose(x, w, b.astype('f4'))": (
        DTypeError,
        "x has dtype float64 but bias has float32; pass dtype= to convert the operands, for "
        'example dtype="float64".',
        "conv_transpose(x, w, b.astype('f4'), dtype='float64')",
    ),
    "conv_transpose(x, w, 1.0)": (
        ShapeError,
        "bias has shape (), must be (3,), one number per channel of the result; pass such"
        " a bias, and stride by its name if that was meant.",
    ),
    "conv_transpose(x, w, np.ones(4))": (
        ShapeError,
        "bias has shape (4,), must be (3,), one number per channel of the result; pass such "
        "a bias.",
    ),
    "conv_transpose(x, w, np.ones((3, 1)))": (
        ShapeError,
        "bias has shape (3, 1), must be (3,), one number per channel of the result; pass "
        "such a bias.",
        "conv_transpose(x, w, np.ones((3, 1)).reshape(3))",
    ),
    "conv(y, w, b)": (
        ShapeError,
        "bias has shape (3,), must be (4,), one number per channel of the result; pass such "
        "a bias.",
    ),
    "conv_transpose(np.ma.masked_array(x), w)": (
        DTypeError,
        "x is a masked array, whose mask would be ignored; pass x.filled(0) to let masked "
        "samples contribute nothing.",
        "conv_transpose(np.ma.masked_array(x).filled(0), w)",
    ),
    "conv_transpose(x, array_api_strict.asarray(w))": (
        DTypeError,
        "x is an array of numpy but weight of array_api_strict; convert one of them, "
        "operands must be of one library.",
        "conv_transpose(x, np.asarray(array_api_strict.asarray(w)))",
    ),
    # ---- dtype -----------------------------------------------------------------------------------
    "conv_transpose(x, w, dtype='f4')": (
        DTypeError,
        "dtype='f4' must name one of float16, bfloat16, float32, float64, complex64, "
        "complex128, int8, uint8, int16, uint16, int32, uint32, int64; pass one of these.",
        "conv_transpose(x, w, dtype='float32')",
    ),
    "conv_transpose(x, w, dtype='bool')": (
        DTypeError,
        "dtype='bool' must name one of float16, bfloat16, float32, float64, complex64, "
        "complex128, int8, uint8, int16, uint16, int32, uint32, int64; pass one of these.",
    ),
    "conv_transpose(x, w, dtype=bool)": (
        DTypeError,
        "dtype=<class 'bool'> must name one of float16, bfloat16, float32, float64, "
        "complex64, complex128, int8, uint8, int16, uint16, int32, uint32, int64; pass one "
        "of these.",
    ),
    "conv_transpose(x, w, dtype=7)": (
        DTypeError,
        "dtype=7 must name one of float16, bfloat16, float32, float64, complex64, "
        "complex128, int8, uint8, int16, uint16, int32, uint32, int64; pass one of these.",
    ),
    "conv_transpose(x, w, dtype=[float])": (
        DTypeError,
        "dtype=[<class 'float'>] must name one of float16, bfloat16, float32, float64, "
        "complex64, complex128, int8, uint8, int16, uint16, int32, uint32, int64; pass one "
        "of these.",
    ),
    "conv_transpose(x, w, dtype='int64')": (
        DTypeError,
        "x has dtype float64, which dtype=int64 cannot hold; convert x yourself in the way "
        "you mean.",
    ),
    "conv_transpose(x * 1j, w, dtype='float64')": (
        DTypeError,
        "x has dtype complex128, which dtype=float64 cannot hold; convert x yourself in the "
        "way you mean.",
    ),
    "conv_transpose(300 * x.astype(int), w.astype(int), dtype='int8')": (
        DTypeError,
        "x has values 300 to 300, which dtype=int8 cannot hold; pass a wider dtype.",
        "conv_transpose(300 * x.astype(int), w.astype(int), dtype='int16')",
    ),
    "conv_transpose(x.astype(int) << 62, w.astype(int))": (
        DTypeError,
        "sums of int64 products could reach 55,340,232,221,128,654,848, beyond int64's "
        '9,223,372,036,854,775,807; pass smaller values or dtype="float64".',
        "conv_transpose(x.astype(int) << 62, w.astype(int), dtype='float64')",
    ),
    "conv_transpose(x.astype(int), w.astype(int), b.astype(int) << 63)": (
        DTypeError,
        "sums of int64 products could reach 9,223,372,036,854,775,820, beyond int64's "
        '9,223,372,036,854,775,807; pass smaller values or dtype="float64".',
    ),
    # ---- out -------------------------------------------------------------------------------------
    "conv_transpose(x, w, out=5)": (
        DTypeError,
        "out must be an array of the operands' library, not int; pass such an array or leave "
        "out away.",
    ),
    "conv_transpose(x, w, out='out')": (
        DTypeError,
        "out must be an array of the operands' library, not str; pass such an array or leave "
        "out away.",
    ),
    "conv_transpose(x, w, out=y.tolist())": (
        DTypeError,
        "out must be an array of the operands' library, not list; pass such an array or "
        "leave out away.",
    ),
    "conv_transpose(x, w, out=array_api_strict.asarray(y))": (
        DTypeError,
        "out must be an array of the operands' library, not Array; pass such an array or "
        "leave out away.",
    ),
    "conv_transpose(x, w, out=np.ma.masked_array(y))": (
        DTypeError,
        "out is a masked array, whose mask could hide results; pass out.data.",
        "conv_transpose(x, w, out=np.ma.masked_array(y).data)",
    ),
    "conv_transpose(x, w, out=read_only)": (
        ParameterError,
        "out must be writable, it is read-only; pass a copy.",
        "conv_transpose(x, w, out=read_only.copy())",
    ),
    "conv_transpose(x, w, out=y[:, :, :-1])": (
        ShapeError,
        "out has shape (2, 3, 6), must be the result's (2, 3, 7); pass such an array.",
        "conv_transpose(x, w, out=np.empty((2, 3, 7)))",
    ),
    "conv_transpose(x, w, out=y[0])": (
        ShapeError,
        "out has shape (3, 7), must be the result's (2, 3, 7); pass such an array.",
    ),
    "conv_transpose(x, w, out=y.astype('f4'))": (
        DTypeError,
        "out has dtype float32, must be the result's float64; pass such an array.",
        "conv_transpose(x, w, out=y.astype('float64'))",
    ),
    "conv_transpose(x, w, out=repeated)": (
        ParameterError,
        "out must not repeat its own memory; pass an array of its own memory.",
    ),
    "conv_transpose(x, w, out=sliding)": (
        ParameterError,
        "out must not repeat its own memory; pass an array of its own memory.",
    ),
    "conv_transpose(x, np.ones((4, 4, 1)), out=x)": (
        ParameterError,
        "out must not overlap an operand, it shares memory with one; pass another array.",
        "conv_transpose(x, np.ones((4, 4, 1)), out=x.copy())",
    ),
    "conv_transpose(y, np.ones((3, 3, 1)), y[0, :, 0], out=y[::-1])": (
        ParameterError,
        "out must not overlap an operand, it shares memory with one; pass another array.",
    ),
    "conv(y, w, out=y)": (
        ShapeError,
        "out has shape (2, 3, 7), must be the result's (2, 4, 5); pass such an array.",
    ),
    "conv_weight_gradient(x, y, 3, out=w[0])": (
        ShapeError,
        "out has shape (3, 3), must be the result's (4, 3, 3); pass such an array.",
    ),
    # ---- ranks and channels ----------------------------------------------------------------------
    "conv_transpose(3.0, w)": (
        ShapeError,
        "x.ndim=0 must be 3 (batched) or 2 (unbatched) with weight.ndim=3; reshape x or weight.",
    ),
    "conv_transpose(x, 3.0)": (
        ShapeError,
        "weight.ndim=0 must be at least 3 (two channel axes and one or more spatial axes); "
        "reshape weight.",
    ),
    "conv_transpose(x, w[0])": (
        ShapeError,
        "weight.ndim=2 must be at least 3 (two channel axes and one or more spatial axes); "
        "a kernel without channels needs two more axes of size 1: weight[None, None].",
    ),
    "conv_transpose(x[0, 0], w)": (
        ShapeError,
        "x.ndim=1 must be 3 (batched) or 2 (unbatched) with weight.ndim=3; reshape x or weight.",
    ),
    "conv_transpose(np.ones((8, 8, 8)), np.ones((1, 1, 3, 3, 3)))": (
        ShapeError,
        "x.ndim=3 must be 5 (batched) or 4 (unbatched) with weight.ndim=5; for one sample without "
        "channels pass x[None, None].",
        "conv_transpose(np.ones((8, 8, 8))[None, None], np.ones((1, 1, 3, 3, 3)))",
    ),
    "conv(np.ones((4, 8, 8)), np.ones((1, 1, 3, 3)))": (
        ShapeError,
        'y has 4 channels but weight of shape (1, 1, 3, 3) (weight_format="IO*", groups=1) takes '
        "1; pass y with 1 channels or another weight, or y[:, None] if y is a batch without "
        "channels.",
        "conv(np.ones((4, 8, 8))[:, None], np.ones((1, 1, 3, 3)))",
    ),
    "conv_transpose(x[None], w)": (
        ShapeError,
        "x.ndim=4 must be 3 (batched) or 2 (unbatched) with weight.ndim=3; reshape x or weight.",
        "conv_transpose(x[None].reshape(2, 4, 5), w)",
    ),
    "conv_transpose(np.ones((1,) * 33), np.ones((1,) * 33))": (
        UnsupportedError,
        "weight has 31 spatial axes, at most 30 are supported; reshape x and weight to fewer.",
    ),
    "conv_transpose(x[:, :3], w)": (
        ShapeError,
        'x has 3 channels but weight of shape (4, 3, 3) (weight_format="IO*", groups=1) '
        'takes 4; pass x with 4 channels or another weight, or weight_format="OI*" if the axes '
        "of weight stand in that order.",
        "conv_transpose(x[:, :3], w, weight_format='OI*')",
    ),
    "conv_transpose(np.ones((2, 5, 4)), w)": (
        ShapeError,
        'x has 5 channels but weight of shape (4, 3, 3) (weight_format="IO*", groups=1) '
        'takes 4; pass x with 4 channels or another weight, or data_format="channels_last" '
        "if the channels stand there.",
        "conv_transpose(np.ones((2, 5, 4)), w, data_format='channels_last')",
    ),
    "conv_transpose(x, w, data_format='channels_last')": (
        ShapeError,
        'x has 5 channels but weight of shape (4, 3, 3) (weight_format="IO*", groups=1) '
        'takes 4; pass x with 4 channels or another weight, or data_format="channels_first" '
        "if the channels stand there.",
        "conv_transpose(x, w, data_format='channels_first')",
    ),
    "conv_transpose(x, w, weight_format='OI*')": (
        ShapeError,
        'x has 4 channels but weight of shape (4, 3, 3) (weight_format="OI*", groups=1) '
        'takes 3; pass x with 3 channels or another weight, or weight_format="IO*" if the axes '
        "of weight stand in that order.",
        "conv_transpose(x, w, weight_format='IO*')",
    ),
    "conv_transpose(x, w[:, :0])": (
        ShapeError,
        "weight has shape (4, 0, 3), every size must be at least 1; pass a weight with "
        "channels and taps.",
    ),
    "conv_transpose(x, w[:, :, :0])": (
        ShapeError,
        "weight has shape (4, 3, 0), every size must be at least 1; pass a weight with "
        "channels and taps.",
    ),
    "conv_transpose(x[:, :0], w[:0])": (
        ShapeError,
        "weight has shape (0, 3, 3), every size must be at least 1; pass a weight with "
        "channels and taps.",
    ),
    "conv_transpose(x[:, :, :0], w)": (
        ShapeError,
        "x has size 0 on spatial axis 0, so nothing sets the output size; pass output_size "
        "for an output that holds only the bias.",
        "conv_transpose(x[:, :, :0], w, output_size=3)",
    ),
    "conv(y[:, :, :0], w)": (
        ShapeError,
        "y has size 0 on spatial axis 0, must be at least 1; pass one that is not empty.",
    ),
    "conv(x, w)": (
        ShapeError,
        'y has 4 channels but weight of shape (4, 3, 3) (weight_format="IO*", groups=1) '
        'takes 3; pass y with 3 channels or another weight, or weight_format="OI*" if the axes '
        "of weight stand in that order.",
        "conv(x, w, weight_format='OI*')",
    ),
    "conv_transpose1d(x[..., None], w[..., None])": (
        ShapeError,
        "weight.ndim=4 must be 3 for conv_transpose1d; reshape weight or call "
        "conv_transpose, which takes any rank.",
        "conv_transpose(x[..., None], w[..., None])",
    ),
    "conv_transpose2d(x, w)": (
        ShapeError,
        "weight.ndim=3 must be 4 for conv_transpose2d; reshape weight or call "
        "conv_transpose, which takes any rank.",
    ),
    "conv_transpose3d(x.tolist(), w.tolist())": (
        ShapeError,
        "weight.ndim=3 must be 5 for conv_transpose3d; reshape weight or call "
        "conv_transpose, which takes any rank.",
    ),
    # ---- stride ----------------------------------------------------------------------------------
    "conv_transpose(x, w, stride=0)": (
        ParameterError,
        "stride[0]=0 must be at least 1; pass a positive integer.",
        "conv_transpose(x, w, stride=1)",
    ),
    "conv_transpose(x, w, stride=-2)": (
        ParameterError,
        "stride[0]=-2 must be at least 1; pass a positive integer.",
    ),
    "conv_transpose(x, w, stride=2.0)": (
        ParameterError,
        "stride=2.0 must be an integer; pass 2.",
        "conv_transpose(x, w, stride=2)",
    ),
    "conv_transpose(x, w, stride=2.5)": (
        ParameterError,
        "stride=2.5 must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, stride=float('nan'))": (
        ParameterError,
        "stride=nan must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, stride=float('inf'))": (
        ParameterError,
        "stride=inf must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, stride='2')": (
        ParameterError,
        "stride='2' must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, stride=None)": (
        ParameterError,
        "stride=None must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, stride=True)": (
        ParameterError,
        "stride=True must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, stride=np.True_)": (
        ParameterError,
        "stride=np.True_ must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, stride=1j)": (
        ParameterError,
        "stride=1j must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, stride=(2, 2))": (
        ParameterError,
        "stride=(2, 2) must be one integer or one per spatial axis (1), not 2; pass 1 or (1,).",
        "conv_transpose(x, w, stride=(1,))",
    ),
    "conv_transpose(x, w, stride=())": (
        ParameterError,
        "stride=() must be one integer or one per spatial axis (1), not 0; pass 1 or (1,).",
    ),
    "conv_transpose(x, w, stride=[[2]])": (
        ParameterError,
        "stride[0]=[2] must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, stride={2})": (
        ParameterError,
        "stride={2} must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, stride=2**31)": (
        MemoryLimitError,
        "conv_transpose needs N bytes (output 412,316,860,560, workspace and packed weights "
        "N) but 800,000,000 may be used (80% of the memory available); lower the sizes, "
        "split the batch or free memory.",
    ),
    "conv_transpose(x, w, stride=2**63)": (
        MemoryLimitError,
        "conv_transpose needs N bytes (output 1,770,887,431,076,116,955,280, workspace and "
        "packed weights N) but 800,000,000 may be used (80% of the memory available); lower "
        "the sizes, split the batch or free memory.",
    ),
    "conv_transpose2d(x[..., None], w[..., None], b, (1, 2, 3))": (
        ParameterError,
        "stride=(1, 2, 3) must be one integer or 2, one per spatial axis, not 3; pass 1 or (1, 1).",
    ),
    # ---- dilation --------------------------------------------------------------------------------
    "conv_transpose(x, w, dilation=0)": (
        ParameterError,
        "dilation[0]=0 must be at least 1; pass a positive integer.",
    ),
    "conv_transpose(x, w, dilation=-(2**63))": (
        ParameterError,
        "dilation[0]=-9223372036854775808 must be at least 1; pass a positive integer.",
    ),
    "conv_transpose(x, w, dilation=2**31)": (
        MemoryLimitError,
        "conv_transpose needs N bytes (output 206,158,430,448, workspace and packed weights "
        "N) but 800,000,000 may be used (80% of the memory available); lower the sizes, "
        "split the batch or free memory.",
    ),
    "conv_transpose(x, w, dilation=2**63)": (
        MemoryLimitError,
        "conv_transpose needs N bytes (output 885,443,715,538,058,477,808, workspace and "
        "packed weights N) but 800,000,000 may be used (80% of the memory available); lower "
        "the sizes, split the batch or free memory.",
    ),
    "conv_transpose(x, w, dilation=(1, 1))": (
        ParameterError,
        "dilation=(1, 1) must be one integer or one per spatial axis (1), not 2; pass 1 or (1,).",
    ),
    "conv(y, w, dilation=2**63)": (
        ShapeError,
        "y has size 7 on spatial axis 0, but the kernel needs 18446744073709551617 (kernel "
        "3, stride 1, dilation 9223372036854775808, padding (0, 0)); pass "
        "a larger y or raise padding[0] by 18446744073709551610 in all.",
    ),
    # ---- padding ---------------------------------------------------------------------------------
    "conv_transpose(x, w, padding=4)": (
        ShapeError,
        "the output size on spatial axis 0, (5 - 1)*1 + 1*(3 - 1) + 1 - 4 - 4 + 0 = -1, must "
        "be at least 1; lower padding[0] to a sum of at most 6.",
        "conv_transpose(x, w, padding=((2, 4),))",
    ),
    "conv_transpose(x, w, padding=2**31)": (
        ShapeError,
        "the output size on spatial axis 0, (5 - 1)*1 + 1*(3 - 1) + 1 - 2147483648 - "
        "2147483648 + 0 = -4294967289, must be at least 1; lower padding[0] to a sum of at "
        "most 6.",
    ),
    "conv_transpose(x, w, padding=2**63)": (
        ShapeError,
        "the output size on spatial axis 0, (5 - 1)*1 + 1*(3 - 1) + 1 - 9223372036854775808 "
        "- 9223372036854775808 + 0 = -18446744073709551609, must be at least 1; lower "
        "padding[0] to a sum of at most 6.",
    ),
    "conv_transpose(x, w, padding=-(2**31))": (
        MemoryLimitError,
        "conv_transpose needs N bytes (output 206,158,430,544, workspace and packed weights "
        "N) but 800,000,000 may be used (80% of the memory available); lower the sizes, "
        "split the batch or free memory.",
    ),
    "conv_transpose(x, w, padding=-(2**63))": (
        MemoryLimitError,
        "conv_transpose needs N bytes (output 885,443,715,538,058,477,904, workspace and "
        "packed weights N) but 800,000,000 may be used (80% of the memory available); lower "
        "the sizes, split the batch or free memory.",
    ),
    "conv_transpose(x, w, padding=None)": (
        ParameterError,
        "padding=None must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, padding=1.0)": (
        ParameterError,
        "padding=1.0 must be an integer; pass 1.",
        "conv_transpose(x, w, padding=1)",
    ),
    "conv_transpose(x, w, padding=True)": (
        ParameterError,
        "padding=True must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, padding='SAME')": (
        ParameterError,
        "padding='SAME' must be one of 'valid', 'same', 'same_upper', 'same_lower'; pass 'same'.",
        "conv_transpose(x, w, padding='same')",
    ),
    "conv_transpose(x, w, padding=('same',))": (
        ParameterError,
        "padding[0]='same' must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, padding=(1, 2))": (
        ParameterError,
        "padding=(1, 2) must be one integer, or one per spatial axis (1), each an integer or "
        "a (begin, end) pair, not 2; pass padding=((1, 2),).",
        "conv_transpose(x, w, padding=((1, 2),))",
    ),
    "conv_transpose(x, w, padding=((1, 2), (1, 2)))": (
        ParameterError,
        "padding=((1, 2), (1, 2)) must be one integer, or one per spatial axis (1), each an "
        "integer or a (begin, end) pair, not 2; pass 1 or (1,).",
    ),
    "conv_transpose(x, w, padding=((1, 2, 3),))": (
        ParameterError,
        "padding[0]=(1, 2, 3) must be an integer or a (begin, end) pair; pass (0, 1) for example.",
    ),
    "conv_transpose(x, w, padding=((1, 0.5),))": (
        ParameterError,
        "padding[0][1]=0.5 must be an integer; pass an integer.",
    ),
    "conv(y, w, padding=2**63)": (
        MemoryLimitError,
        "conv needs N bytes (output 1,180,591,620,717,411,303,744, workspace and packed "
        "weights N) but 800,000,000 may be used (80% of the memory available); lower the "
        "sizes, split the batch or free memory.",
    ),
    "conv(y[:, :, :2], w)": (
        ShapeError,
        "y has size 2 on spatial axis 0, but the kernel needs 3 (kernel 3, stride 1, "
        "dilation 1, padding (0, 0)); pass a larger y or raise padding[0] "
        "by 1 in all.",
        "conv(y[:, :, :2], w, padding=((0, 1),))",
    ),
    # ---- output_padding --------------------------------------------------------------------------
    "conv_transpose(x, w, output_padding=1)": (
        ParameterError,
        "output_padding[0]=1 must be smaller than max(stride[0]=1, dilation[0]=1)=1; pass "
        "at most 0, and lower padding for a larger output.",
        "conv_transpose(x, w, padding=((0, -1),))",
    ),
    "conv_transpose(x, w, output_padding=-1)": (
        ParameterError,
        "output_padding[0]=-1 must be at least 0; pass an integer of 0 or more.",
    ),
    "conv_transpose(x, w, stride=2, output_padding=2)": (
        ParameterError,
        "output_padding[0]=2 must be smaller than max(stride[0]=2, dilation[0]=1)=2; pass "
        "at most 1, and lower padding for a larger output.",
        "conv_transpose(x, w, stride=2, padding=((0, -2),))",
    ),
    "conv_transpose(x, w, stride=2, output_padding=2**63)": (
        ParameterError,
        "output_padding[0]=9223372036854775808 must be smaller than max(stride[0]=2, "
        "dilation[0]=1)=2; pass at most 1, and lower padding for a larger output.",
    ),
    "conv_transpose(x, w, stride=2, output_padding='1')": (
        ParameterError,
        "output_padding='1' must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, stride=2, output_padding=1, padding='same')": (
        ParameterError,
        'output_padding[0]=1 must be 0 with padding="same", which sets the output size '
        "itself; leave it out, or pass explicit padding.",
        "conv_transpose(x, w, stride=2, padding='same', output_size=9)",
    ),
    "conv_transpose(x, w, stride=2, output_padding=1, output_size=12)": (
        ParameterError,
        "output_size=12 excludes output_padding=(1,): the size says it already; pass only "
        "one of the two.",
        "conv_transpose(x, w, stride=2, output_size=12)",
    ),
    "conv(y, w, stride=2, output_padding=1)": (
        ShapeError,
        "output_padding[0]=1 does not go with y of size 7 (kernel 3, stride 2, dilation 1, "
        "padding (0, 0), output_padding 1): the last step leaves 0 over; pass "
        "output_padding[0]=0.",
        "conv(y, w, stride=2, output_padding=0)",
    ),
    # ---- groups ----------------------------------------------------------------------------------
    "conv_transpose(x, w, groups=3)": (
        ShapeError,
        "groups=3 must divide the 4 input channels of weight of shape (4, 3, 3) "
        '(weight_format="IO*"); pass a divisor such as 1, 2, 4.',
        "conv_transpose(x, w, groups=2)",
    ),
    "conv_transpose(x, w, groups=0)": (
        ParameterError,
        "groups=0 must be at least 1; pass a positive integer.",
    ),
    "conv_transpose(x, w, groups=-1)": (
        ParameterError,
        "groups=-1 must be at least 1; pass a positive integer.",
    ),
    "conv_transpose(x, w, groups=2.0)": (
        ParameterError,
        "groups=2.0 must be an integer; pass 2.",
        "conv_transpose(x, w, groups=2)",
    ),
    "conv_transpose(x, w, groups=(2,))": (
        ParameterError,
        "groups=(2,) must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, groups=2**63)": (
        ShapeError,
        "groups=9223372036854775808 must divide the 4 input channels of weight of shape (4, "
        '3, 3) (weight_format="IO*"); pass a divisor such as 1, 2, 4.',
    ),
    "conv_transpose(x, w, groups=5, weight_format='OI*')": (
        ShapeError,
        "groups=5 must divide the 4 output channels of weight of shape (4, 3, 3) "
        '(weight_format="OI*"); pass a divisor such as 1, 2, 4.',
    ),
    "conv_weight_gradient(x, y, 3, groups=2)": (
        ShapeError,
        "groups=2 must divide the 4 channels of x and the 3 of y; pass a number that divides both.",
    ),
    # ---- output_size and input_size --------------------------------------------------------------
    "conv_transpose(x, w, output_size=9)": (
        OutputSizeError,
        "output_size[0]=9 cannot be reached from input size 5 with kernel 3, stride 1, "
        "dilation 1, padding (0, 0): reachable is only 7; for 9 pass padding=((-1, -1),).",
        "conv_transpose(x, w, output_size=9, padding=((-1, -1),))",
    ),
    "conv_transpose(x, w, stride=2, output_size=2**63)": (
        OutputSizeError,
        "output_size[0]=9223372036854775808 cannot be reached from input size 5 with kernel "
        "3, stride 2, dilation 1, padding (0, 0): reachable are 11 to 12; for "
        "9223372036854775808 pass padding=((-4611686018427387899, -4611686018427387898),).",
    ),
    "conv_transpose(x, w, output_size=9, padding=20)": (
        OutputSizeError,
        "output_size[0]=9 cannot be reached from input size 5 with kernel 3, stride 1, "
        "dilation 1, padding (20, 20): reachable is no size; for 9 pass padding=((-1, -1),).",
        "conv_transpose(x, w, output_size=9, padding=((-1, -1),))",
    ),
    "conv_transpose(x, w, output_size=0)": (
        ParameterError,
        "output_size[0]=0 must be at least 1; pass a positive integer.",
    ),
    "conv_transpose(x, w, output_size=-7)": (
        ParameterError,
        "output_size[0]=-7 must be at least 1; pass a positive integer.",
    ),
    "conv_transpose(x, w, output_size=7.0)": (
        ParameterError,
        "output_size=7.0 must be an integer; pass 7.",
        "conv_transpose(x, w, output_size=7)",
    ),
    "conv_transpose(x, w, output_size='7')": (
        ParameterError,
        "output_size='7' must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, output_size=(7, 7))": (
        ParameterError,
        "output_size=(7, 7) must be one integer, one per spatial axis (1), or a full shape "
        "of 3, not 2 integers; pass 8 or (8,) for example.",
    ),
    "conv_transpose(x, w, output_size=(2, 3, 7, 7))": (
        ParameterError,
        "output_size=(2, 3, 7, 7) must be one integer, one per spatial axis (1), or a full "
        "shape of 3, not 4 integers; pass 8 or (8,) for example.",
    ),
    "conv_transpose(x, w, output_size=(1, 3, 7))": (
        ShapeError,
        "output_size=(1, 3, 7) must have batch and channels (2, 3), not (1, 3); pass these "
        "or only the spatial size (7,).",
        "conv_transpose(x, w, output_size=(7,))",
    ),
    "conv_transpose(x[0], w, output_size=(4, 7))": (
        ShapeError,
        "output_size=(4, 7) must have channels (3,), not (4,); pass these or only the "
        "spatial size (7,).",
    ),
    "conv_transpose(x, w, stride=3, padding='same', output_size=16)": (
        OutputSizeError,
        'output_size[0]=16 cannot be reached with padding="same" from input size 5 and '
        "stride 3: reachable are 13 to 15; pass one of these or explicit padding.",
        "conv_transpose(x, w, stride=3, padding='same', output_size=15)",
    ),
    "conv(y, w, input_size=4)": (
        ShapeError,
        "input_size[0]=4 cannot come from y of size 7 (kernel 3, stride 1, dilation 1, "
        "padding (0, 0)): possible is only 5; pass one of these or another "
        "y.",
        "conv(y, w, input_size=5)",
    ),
    "conv(y, w, dilation=2, input_size=4)": (
        ShapeError,
        "input_size[0]=4 cannot come from y of size 7 (kernel 3, stride 1, dilation 2, "
        "padding (0, 0)): possible are 2 to 3; pass one of these or "
        "another y.",
        "conv(y, w, dilation=2, input_size=2)",
    ),
    "conv(y, w, stride=3, padding='same', input_size=4)": (
        ShapeError,
        'input_size[0]=4 cannot come from y of size 7 (stride 3, padding="same"): possible '
        "is only 3; pass this or another y.",
        "conv(y, w, stride=3, padding='same', input_size=3)",
    ),
    "conv(y, w, stride=2, output_padding=1, input_size=3)": (
        ParameterError,
        "input_size=3 excludes output_padding=(1,): the size says it already; pass only one "
        "of the two.",
        "conv(y, w, stride=2, input_size=3)",
    ),
    # ---- padding_mode ----------------------------------------------------------------------------
    "conv_transpose(x, w, padding_mode='reflection')": (
        ParameterError,
        "padding_mode='reflection' must be one of 'zeros', 'circular', 'reflect', "
        "'replicate'; pass 'reflect'.",
    ),
    "conv_transpose(x, w, padding_mode=None)": (
        ParameterError,
        "padding_mode=None must be one of 'zeros', 'circular', 'reflect', 'replicate'; pass "
        "one of these.",
    ),
    "conv_transpose(x, w, padding_mode='reflect', padding='same')": (
        ParameterError,
        'padding_mode="reflect" excludes padding="same"; pass integers, or padding_mode="zeros".',
    ),
    "conv_transpose(x, w, padding_mode='circular', padding=-1)": (
        ParameterError,
        'padding[0]=(-1, -1) must not be negative with padding_mode="circular"; pass padding '
        'of 0 or more, or padding_mode="zeros".',
        "conv_transpose(x, w, padding=-1)",
    ),
    "conv_transpose(x, w, padding_mode='circular', stride=2, output_padding=1)": (
        ParameterError,
        'padding_mode="circular" excludes output_padding=1; pass output_padding=0 or '
        'padding_mode="zeros".',
        "conv_transpose(x, w, padding_mode='circular', stride=2)",
    ),
    "conv_transpose(x, w, padding_mode='reflect', padding=3)": (
        ShapeError,
        "padding[0]=(3, 3) must be smaller than the output size 1 with "
        'padding_mode="reflect"; lower padding or use padding_mode="circular".',
        "conv_transpose(x, w, padding_mode='circular', padding=3)",
    ),
    "conv(y, w, padding_mode='replicate', padding=7)": (
        ShapeError,
        "padding[0]=(7, 7) must be smaller than y's size 7 with "
        'padding_mode="replicate"; lower padding or use padding_mode="circular".',
        "conv(y, w, padding_mode='circular', padding=7)",
    ),
    "conv(y, w, padding_mode='circular', padding=2**63)": (
        MemoryLimitError,
        "conv needs N bytes (output 1,180,591,620,717,411,303,744, workspace and packed "
        "weights N) but 800,000,000 may be used (80% of the memory available); lower the "
        "sizes, split the batch or free memory.",
    ),
    "conv_weight_gradient(x, y[:, :, :5], 3, padding_mode='circular', padding='same')": (
        ParameterError,
        'padding_mode="circular" excludes padding="same"; pass integers, or padding_mode="zeros".',
    ),
    # ---- names and flags -------------------------------------------------------------------------
    "conv_transpose(x, w, data_format='NCHW')": (
        ParameterError,
        "data_format='NCHW' must be one of 'channels_first', 'channels_last'; pass "
        "'channels_first'.",
    ),
    "conv_transpose(x, w, data_format=None)": (
        ParameterError,
        "data_format=None must be one of 'channels_first', 'channels_last'; pass one of these.",
    ),
    "conv_transpose(x, w, weight_format='OIW')": (
        ParameterError,
        "weight_format='OIW' must be one of 'IO*', '*OI', '*IO', 'OI*', 'O*I'; pass one of these.",
    ),
    "conv_transpose(x, w, weight_format=['IO*'])": (
        ParameterError,
        "weight_format=['IO*'] must be one of 'IO*', '*OI', '*IO', 'OI*', 'O*I'; pass one of "
        "these.",
    ),
    "conv_transpose(x, w, flip_kernel=1)": (
        ParameterError,
        "flip_kernel=1 must be True or False; pass one of these.",
        "conv_transpose(x, w, flip_kernel=True)",
    ),
    "conv_transpose(x, w, flip_kernel='no')": (
        ParameterError,
        "flip_kernel='no' must be True or False; pass one of these.",
    ),
    "conv_transpose(x, w, method='fast')": (
        ParameterError,
        "method='fast' must be one of 'auto', 'direct', 'measure', 'fft'; pass one of these.",
    ),
    "conv_transpose(x, w, method=None)": (
        ParameterError,
        "method=None must be one of 'auto', 'direct', 'measure', 'fft'; pass one of these.",
    ),
    "conv_transpose(x, w, threads=0)": (
        ParameterError,
        "threads=0 must be at least 1; pass a positive integer.",
    ),
    "conv_transpose(x, w, threads=2.0)": (
        ParameterError,
        "threads=2.0 must be an integer; pass 2.",
        "conv_transpose(x, w, threads=2)",
    ),
    "conv_transpose(x, w, max_bytes=0)": (
        ParameterError,
        "max_bytes=0 must be at least 1; pass a positive integer.",
    ),
    "conv_transpose(x, w, max_bytes='1G')": (
        ParameterError,
        "max_bytes='1G' must be an integer; pass an integer.",
    ),
    "conv_transpose(x, w, max_bytes=1e9)": (
        ParameterError,
        "max_bytes=1000000000.0 must be an integer; pass 1000000000.",
        "conv_transpose(x, w, max_bytes=1000000000)",
    ),
    "conv_transpose(x, w, max_bytes=100)": (
        MemoryLimitError,
        "conv_transpose needs N bytes (output 336, workspace and packed weights N) but "
        "max_bytes=100; lower the sizes, split the batch or raise max_bytes.",
        "conv_transpose(x, w, max_bytes=10_000)",
    ),
    "conv_transpose(x, w, strides=2)": (
        TypeError,
        "conv_transpose() got an unexpected keyword argument 'strides'; did you mean 'stride'?",
    ),
    "conv(y, w, output_size=5)": (
        TypeError,
        "conv() got an unexpected keyword argument 'output_size'; did you mean 'input_size'?",
    ),
    "conv_weight_gradient(x, y, 3, output_size=7)": (
        TypeError,
        "conv_weight_gradient() got an unexpected keyword argument 'output_size'",
    ),
    "conv_transpose_vjp(x, w, strides=2)": (
        TypeError,
        "unexpected keyword argument 'strides'; did you mean 'stride'?",
    ),
    "conv_transpose(x, w, b, 2)": (
        TypeError,
        "conv_transpose() takes from 2 to 3 positional arguments but 4 were given",
    ),
    # ---- conv_weight_gradient --------------------------------------------------------------------
    "conv_weight_gradient(x, y, 0)": (
        ParameterError,
        "kernel_size[0]=0 must be at least 1; pass a positive integer.",
    ),
    "conv_weight_gradient(x, y, 3.0)": (
        ParameterError,
        "kernel_size=3.0 must be an integer; pass 3.",
        "conv_weight_gradient(x, y, 3)",
    ),
    "conv_weight_gradient(x, y, '3')": (
        ParameterError,
        "kernel_size='3' must be an integer; pass an integer.",
    ),
    "conv_weight_gradient(x, y, None)": (
        ParameterError,
        "kernel_size=None must be an integer; pass an integer.",
    ),
    "conv_weight_gradient(x, y, ())": (
        ParameterError,
        "kernel_size=() must be one integer or one per spatial axis (1), not 0; pass 1 or (1,).",
    ),
    "conv_weight_gradient(x, y, (3, 3, 3))": (
        ShapeError,
        "x.ndim=3 and y.ndim=3 must both be 5 (batched) or both 4 (unbatched) with "
        "kernel_size=(3, 3, 3); for one sample without channels pass x[None, None] and "
        "y[None, None].",
    ),
    "conv_weight_gradient(x, y, 2)": (
        OutputSizeError,
        "y's size 7 on spatial axis 0 cannot be reached from input size 5 with kernel 2, "
        "stride 1, dilation 1, padding (0, 0): reachable is only 6; for 7 pass padding=((-1, "
        "0),).",
        "conv_weight_gradient(x, y, 2, padding=((-1, 0),))",
    ),
    "conv_weight_gradient(x, y, 2**63)": (
        OutputSizeError,
        "y's size 7 on spatial axis 0 cannot be reached from input size 5 with kernel "
        "9223372036854775808, stride 1, dilation 1, padding (0, 0): reachable is only "
        "9223372036854775812; for 7 pass padding=((4611686018427387902, "
        "4611686018427387903),).",
    ),
    "conv_weight_gradient(x, y[0], 3)": (
        ShapeError,
        "x.ndim=3 and y.ndim=2 must both be 3 (batched) or both 2 (unbatched) with "
        "kernel_size=(3,); reshape x or y.",
    ),
    "conv_weight_gradient(x[:1], y, 3)": (
        ShapeError,
        "y has shape (2, 3, 7) but x of shape (1, 4, 5) gives (1, 3, 7); pass x and y of one "
        "and the same transposed convolution.",
    ),
    "conv_weight_gradient(x[:, :0], y, 3)": (
        ShapeError,
        "x has 0 channels and y has 3, both must have at least 1; pass arrays with channels.",
    ),
    "conv_weight_gradient(x, y[:, :, :0], 3)": (
        ShapeError,
        "y has size 0 on spatial axis 0, must be at least 1; pass a y that is not empty.",
    ),
    "conv_weight_gradient(x, y, 3, stride=2, output_padding=1)": (
        ShapeError,
        "y has shape (2, 3, 7) but x of shape (2, 4, 5) gives (2, 3, 12); pass x and y of "
        "one and the same transposed convolution.",
    ),
    # ---- output_shape ----------------------------------------------------------------------------
    "conv_output_shape((1, 3, 2), (4, 3, 3))": (
        ShapeError,
        "y has size 2 on spatial axis 0, but the kernel needs 3 (kernel 3, stride 1, dilation 1, "
        "padding (0, 0)); pass a larger y or raise padding[0] by 1 in all.",
        "conv_output_shape((1, 3, 2), (4, 3, 3), padding=((1, 0),))",
    ),
    "conv_output_shape(y, w)": (
        ParameterError,
        "weight_shape is an array of shape (4, 3, 3), must be a sequence of integers; pass "
        "weight.shape.",
        "conv_output_shape(y.shape, w.shape)",
    ),
    "output_shape(3, (1, 1, 3))": (
        ParameterError,
        "x_shape=3 must be a sequence of integers; pass an array's shape.",
    ),
    "output_shape((1, 1, 3), None)": (
        ParameterError,
        "weight_shape=None must be a sequence of integers; pass an array's shape.",
    ),
    "output_shape('abc', (1, 1, 3))": (
        ParameterError,
        "x_shape='abc' must be a sequence of integers; pass an array's shape.",
    ),
    "output_shape((1, 1, -3), (1, 1, 3))": (
        ParameterError,
        "x_shape[2]=-3 must be at least 0; pass an integer of 0 or more.",
    ),
    "output_shape((1, 1, 3.0), (1, 1, 3))": (
        ParameterError,
        "x_shape[2]=3.0 must be an integer; pass 3.",
        "output_shape((1, 1, 3), (1, 1, 3))",
    ),
    "output_shape((1, 1, 3), (1, 1, 3), padding_mode='reflect', padding=2)": (
        ShapeError,
        "padding[0]=(2, 2) must be smaller than the output size 1 with "
        'padding_mode="reflect"; lower padding or use padding_mode="circular".',
    ),
    "output_shape((1, 1, 3), (1, 1, 3), flip_kernel=True)": (
        TypeError,
        "output_shape() got an unexpected keyword argument 'flip_kernel'",
    ),
    # ---- solve -----------------------------------------------------------------------------------
    "solve()": (
        ParameterError,
        "input_size=None, output_size=None: one of them must be given; pass the size you have.",
    ),
    "solve(input_size=0)": (
        ParameterError,
        "input_size=0 must be at least 1; pass a positive integer.",
    ),
    "solve(input_size=4.0)": (
        ParameterError,
        "input_size=4.0 must be an integer; pass 4.",
        "solve(input_size=4)",
    ),
    "solve(input_size=4, stride=0)": (
        ParameterError,
        "stride=0 must be at least 1; pass a positive integer.",
    ),
    "solve(input_size=4, kernel_size=True)": (
        ParameterError,
        "kernel_size=True must be an integer; pass an integer.",
    ),
    "solve(input_size=4, padding='same')": (
        ParameterError,
        "padding='same' must be an integer; pass an integer.",
    ),
    "solve(input_size=4, padding=(1, 2, 3))": (
        ParameterError,
        "padding=(1, 2, 3) must be an integer or a (begin, end) pair; pass (0, 1) for example.",
    ),
    "solve(input_size=4, limit=0)": (
        ParameterError,
        "limit=0 must be at least 1; pass a positive integer.",
    ),
    "solve(input_size=4, limit=2**31)": (
        ParameterError,
        "limit=2147483648 must be at most 100000; pass a smaller one.",
        "solve(input_size=4, limit=100_000)",
    ),
    "solve(size=4)": (
        TypeError,
        "solve() got an unexpected keyword argument 'size'",
    ),
    # ---- derivatives -----------------------------------------------------------------------------
    "conv_transpose_vjp(None, w)": (
        DTypeError,
        "x=None must be an array, not NoneType; pass a NumPy array or one of another array "
        "library.",
    ),
    "conv_transpose_vjp(x.astype(int), w.astype(int))": (
        DTypeError,
        'x has dtype int64, gradients need a floating or complex type; pass dtype="float64" '
        "for example.",
        "conv_transpose_vjp(x.astype(int), w.astype(int), dtype='float64')",
    ),
    "conv_transpose_vjp(x, w)[1](None)": (
        DTypeError,
        "dy=None must be an array, not NoneType; pass a NumPy array or one of another array "
        "library.",
    ),
    "conv_transpose_vjp(x, w)[1](y[:, :, 1:])": (
        ShapeError,
        "dy has shape (2, 3, 6), must be that of y, (2, 3, 7); reshape dy.",
    ),
    "conv_transpose_vjp(x, w)[1](y.astype('f4'))": (
        DTypeError,
        "dy has dtype float32, must be that of y, float64; convert dy.",
        "conv_transpose_vjp(x, w)[1](y.astype('f4').astype('float64'))",
    ),
    "conv_transpose_vjp(x, w)[1](array_api_strict.asarray(y))": (
        DTypeError,
        "dy is an array of array_api_strict but y of numpy; convert dy.",
    ),
    "conv_transpose_jvp(x, w)": (
        ShapeError,
        "primals must be (x, weight) or (x, weight, bias); pass such a tuple.",
        "conv_transpose_jvp((x, w), (x, w))",
    ),
    "conv_transpose_jvp((x, w), (x,))": (
        ShapeError,
        "tangents must be (x, weight) or (x, weight, bias); pass such a tuple.",
    ),
    "conv_transpose_jvp((x, w), (w, x))": (
        ShapeError,
        "dx has shape (4, 3, 3), must be that of x, (2, 4, 5); reshape dx.",
    ),
    "conv_transpose_jvp((x, w), (x, w, b))": (
        ShapeError,
        "dbias has no bias to change; pass bias or dbias=None.",
        "conv_transpose_jvp((x, w), (x, w, None))",
    ),
    "conv_transpose_jvp((None, w), (x, w))": (
        DTypeError,
        "x=None must be an array, not NoneType; pass a NumPy array or one of another array "
        "library.",
    ),
    "conv_transpose_jvp((x, w), (x.astype('f4'), w))": (
        DTypeError,
        "x has dtype float64 but dx has float32; pass dtype= to convert the operands, for "
        'example dtype="float64".',
        "conv_transpose_jvp((x, w), (x.astype('f4'), w), dtype='float64')",
    ),
    "conv_transpose_jvp((x.astype(int), w.astype(int)), (None, None))": (
        DTypeError,
        'x has dtype int64, gradients need a floating or complex type; pass dtype="float64" '
        "for example.",
        "conv_transpose_jvp((x.astype(int), w.astype(int)), (None, None), dtype='float64')",
    ),
    "conv_transpose_jvp((x, w), (x, w), out=y)": (
        TypeError,
        "unexpected keyword argument 'out'",
    ),
    "check_adjoint(None, (1, 4, 5))": (
        DTypeError,
        "weight=None must be an array, not NoneType; pass a NumPy array or one of another "
        "array library.",
    ),
    "check_adjoint(w, None)": (
        ParameterError,
        "x_shape=None must be a sequence of integers; pass an array's shape.",
    ),
    "check_adjoint(w, (1, 3, 5))": (
        ShapeError,
        'x has 3 channels but weight of shape (4, 3, 3) (weight_format="IO*", groups=1) '
        'takes 4; pass x with 4 channels or another weight, or weight_format="OI*" if the axes '
        "of weight stand in that order.",
    ),
    "check_adjoint(w, (1, 4, 5), rng='seed')": (
        ParameterError,
        "rng='seed' must be a numpy.random.Generator or a seed; pass an integer of 0 or more.",
    ),
    "check_adjoint(w, (1, 4, 5), rng=-1)": (
        ParameterError,
        "rng=-1 must be a numpy.random.Generator or a seed; pass an integer of 0 or more.",
        "check_adjoint(w, (1, 4, 5), rng=0)",
    ),
    "check_adjoint(w, (1, 4, 2**40))": (
        MemoryLimitError,
        "conv_transpose needs N bytes (output 26,388,279,066,672, workspace and packed "
        "weights N) but 800,000,000 may be used (80% of the memory available); lower the "
        "sizes, split the batch or free memory.",
    ),
    "gradcheck(None, w)": (
        DTypeError,
        "x=None must be an array, not NoneType; pass a NumPy array or one of another array "
        "library.",
    ),
    "gradcheck(x * 1j, w * 1j)": (
        DTypeError,
        "x has dtype complex128, must be real; pass x.real.",
        "gradcheck((x * 1j).real, (w * 1j).real)",
    ),
    "gradcheck(x > 0, w > 0)": (
        DTypeError,
        "x has dtype bool, which has no transposed convolution; pass dtype= to convert the "
        'operands, for example dtype="float32".',
        "gradcheck(x > 0, w > 0, dtype='float32')",
    ),
    "gradcheck(x, w, limit=0)": (
        ParameterError,
        "limit=0 must be at least 1; pass a positive integer.",
    ),
    "gradcheck(x, w, rng=0.5)": (
        ParameterError,
        "rng=0.5 must be a numpy.random.Generator or a seed; pass an integer of 0 or more.",
    ),
}


@pytest.fixture(autouse=True)
def _a_billion_bytes(monkeypatch):
    monkeypatch.setattr(dispatch, "available_bytes", lambda: 10**9)


@pytest.fixture
def guard():
    """Raise after 10 seconds in Python, end the process if a library hangs for longer."""

    def too_long(*_):
        raise TimeoutError(f"no answer after {MOST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(MOST_SECONDS)
    faulthandler.dump_traceback_later(2 * MOST_SECONDS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("guard")
@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_call_is_told_what_is_wrong(call):
    error, message, *_ = CALLS[call]
    named = arrays()
    with pytest.raises(error) as raised:
        eval(call, PUBLIC | MODULES | named)
    assert type(raised.value) is error
    assert (
        BYTES.sub(r"needs N bytes (\1, workspace and packed weights N)", str(raised.value))
        == message
    )
    for name, before in arrays().items():
        assert np.array_equal(named[name], before), f"{name} was changed"


@pytest.mark.usefixtures("guard")
@pytest.mark.parametrize("call", [call for call, row in CALLS.items() if len(row) == 3])
def test_the_remedy_works(call):
    eval(CALLS[call][2], PUBLIC | MODULES | arrays())


@pytest.mark.parametrize("call", CALLS)
def test_a_message_is_one_sentence_that_ends_in_advice(call):
    error, message, *_ = CALLS[call]
    if issubclass(error, TConvError):
        assert "; " in message
        assert message.endswith(".")
        assert "\n" not in message


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ParameterError, ValueError),
        (ShapeError, ValueError),
        (OutputSizeError, ShapeError),
        (DTypeError, TypeError),
        (MemoryLimitError, MemoryError),
        (UnsupportedError, NotImplementedError),
    ],
)
def test_an_error_is_also_the_one_a_caller_would_expect(error, builtin):
    assert issubclass(error, builtin)
    assert issubclass(error, TConvError)


def test_every_public_function_is_called_wrongly():
    core = {"tconv.ops.functional", "tconv.ops.gradients", "tconv.geometry.solver"}
    functions = {
        name for name, value in PUBLIC.items() if getattr(value, "__module__", None) in core
    } - {"Solution"}
    assert {call.partition("(")[0] for call in CALLS} == functions
    assert len(CALLS) >= 60
