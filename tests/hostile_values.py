"""Values that no caller should pass, by name; each is made anew for every call.

The methods of some raise `Raised`, which may pass through a call: it is the caller's own.
"""

import array
import collections
import datetime
import decimal
import fractions
import functools
import io
import itertools
import math
import types
import uuid
from unittest import mock

import ml_dtypes
import numpy as np

__all__ = ["VALUES", "WRAPPINGS", "Raised"]


class Raised(Exception):
    """What the methods of values raise."""


def _raises(*_, **__):
    raise Raised


def raising(*methods):
    """An object some of whose methods raise."""
    return type("Raising", (), dict.fromkeys(methods, _raises))()


def giving(**methods):
    """An object some of whose methods give what is said."""
    bodies = {f"__{name}__": (lambda self, *_, _v=v, **__: _v) for name, v in methods.items()}
    return type("Giving", (), bodies)()


def containing_itself():
    found = [1]
    found.append(found)
    return found


def doubling_itself():
    found = []
    found += [found, found]
    return found


def holding_itself():
    found = {}
    found["self"] = found
    return found


def deep(depth):
    found = []
    for _ in range(depth):
        found = [found]
    return found


def doubled(levels):
    found = [0.0]
    for _ in range(levels):
        found = [found, found]
    return found


class Endless:
    """A sequence whose end never comes, though it has a length."""

    def __len__(self):
        return 2

    def __iter__(self):
        return itertools.repeat(1)


class Lying(np.ndarray):
    """An array that says another shape than it has."""

    @property
    def shape(self):
        return (1, 1, 1)


class Slots:
    __slots__ = ()


class MyInt(int):
    """An integer that shows itself in a strange way."""

    def __repr__(self):
        return "many"

    def __eq__(self, other):
        raise Raised

    __hash__ = int.__hash__


class MyList(list):
    def __iter__(self):
        raise Raised


class MyStr(str):
    def __eq__(self, other):
        raise Raised

    __hash__ = str.__hash__


def masked():
    return np.ma.masked_array(np.ones((2, 2)), [[True, False], [False, True]])


def read_only():
    found = np.ones((1, 1, 3))
    found.flags.writeable = False
    return found


def huge(*shape, dtype=float):
    """A view that would not fit in any memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def a_function(*args, **keywords):
    return None


VALUES = {
    # ---- constants and numbers
    "None": lambda: None,
    "NotImplemented": lambda: NotImplemented,
    "Ellipsis": lambda: ...,
    "True": lambda: True,
    "False": lambda: False,
    "np.True_": lambda: np.True_,
    "0": lambda: 0,
    "1": lambda: 1,
    "-1": lambda: -1,
    "7": lambda: 7,
    "100": lambda: 100,
    "65_537": lambda: 65_537,
    "2**31": lambda: 2**31,
    "2**31 - 1": lambda: 2**31 - 1,
    "2**62": lambda: 2**62,
    "2**63": lambda: 2**63,
    "-2**63": lambda: -(2**63),
    "2**64": lambda: 2**64,
    "2**100": lambda: 2**100,
    "10**400": lambda: 10**400,
    "10**5000": lambda: 10**5000,
    "-10**5000": lambda: -(10**5000),
    "0.5": lambda: 0.5,
    "-0.0": lambda: -0.0,
    "2.0": lambda: 2.0,
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "1e300": lambda: 1e300,
    "-1e300": lambda: -1e300,
    "5e-324": lambda: 5e-324,
    "1j": lambda: 1j,
    "Decimal": lambda: decimal.Decimal("1.5"),
    "Decimal('sNaN')": lambda: decimal.Decimal("sNaN"),
    "Fraction": lambda: fractions.Fraction(10**400, 3),
    "MyInt": lambda: MyInt(2),
    # ---- NumPy's scalars
    "np.int8": lambda: np.int8(-1),
    "np.uint8": lambda: np.uint8(2),
    "np.uint64": lambda: np.uint64(2**63),
    "np.float16": lambda: np.float16(2),
    "np.longdouble": lambda: np.longdouble(2) ** 1100,
    "np.complex64": lambda: np.complex64(1j),
    "np.datetime64": lambda: np.datetime64("2020-01-01"),
    "np.timedelta64": lambda: np.timedelta64(5, "s"),
    "np.str_": lambda: np.str_("no"),
    "np.void": lambda: np.void(b"12345678"),
    "bfloat16": lambda: ml_dtypes.bfloat16(2),
    # ---- words
    "''": lambda: "",
    "'no'": lambda: "no",
    "'True'": lambda: "True",
    "'float32'": lambda: "float32",
    "'same'": lambda: "same",
    "'relu'": lambda: "relu",
    "'0.weight'": lambda: "0.weight",
    "'1.5'": lambda: "1.5",
    "'*'": lambda: "*",
    "'\\0'": lambda: "a\0b.npz",
    "a lone surrogate": lambda: "\udcff.npz",
    "half a surrogate pair": lambda: "\ud800.png",
    "a long word": lambda: "no" * 5000,
    "MyStr": lambda: MyStr("zeros"),
    "b''": lambda: b"",
    "b'no'": lambda: b"no",
    "bytearray": lambda: bytearray(b"1.5"),
    "memoryview": lambda: memoryview(b"1.5"),
    "memoryview of doubles": lambda: memoryview(np.ones(3)),
    "array.array": lambda: array.array("d", [1, 2]),
    # ---- sequences
    "[]": list,
    "()": tuple,
    "[1]": lambda: [1],
    "(1, 2)": lambda: (1, 2),
    "(1, 2, 3)": lambda: (1, 2, 3),
    "(2, 2, 3, 3)": lambda: (2, 2, 3, 3),
    "((0, 1),)": lambda: ((0, 1),),
    "[None]": lambda: [None],
    "['a', 'b']": lambda: ["a", "b"],
    "[1.5, 2]": lambda: [1.5, 2],
    "[True]": lambda: [True],
    "[2**63]": lambda: [2**63],
    "[10**5000]": lambda: [10**5000],
    "[nan]": lambda: [math.nan],
    "[[]]": lambda: [[]],
    "[[1], [2, 3]]": lambda: [[1], [2, 3]],
    "[[[1, 2, 3]]]": lambda: [[[1, 2, 3]]],
    "many ones": lambda: [1] * 100_000,
    "a list of itself": containing_itself,
    "a list of itself twice": doubling_itself,
    "a deep list": lambda: deep(40),
    "a very deep list": lambda: deep(100_000),
    "a doubled list": lambda: doubled(40),
    "MyList": lambda: MyList([1, 2]),
    "a namedtuple": lambda: collections.namedtuple("P", "a b")(1, 2),
    "deque": lambda: collections.deque([1, 2]),
    "range": lambda: range(3),
    "a huge range": lambda: range(2**60),
    "a range too long for len": lambda: range(2**70),
    "slice": lambda: slice(None),
    "Endless": Endless,
    # ---- other containers
    "{}": dict,
    "{'x': 1}": lambda: {"x": 1},
    "{1: 2}": lambda: {1: 2},
    "a dict of itself": holding_itself,
    "MappingProxy": lambda: types.MappingProxyType({"x": np.ones(3)}),
    "defaultdict": lambda: collections.defaultdict(lambda: None),
    "set": lambda: {1, 2},
    "frozenset": frozenset,
    "dict keys": lambda: {"a": 1}.keys(),
    # ---- iterators
    "generator": lambda: (n for n in (1, 2)),
    "a raising generator": lambda: (_raises() for _ in (1,)),
    "count": itertools.count,
    "repeat(1)": lambda: itertools.repeat(1),
    "iter([])": lambda: iter([]),
    "map": lambda: map(_raises, [1]),
    # ---- arrays
    "0-d": lambda: np.array(2),
    "0-d float": lambda: np.array(1.5),
    "0-d object": lambda: np.array(None),
    "ones(3)": lambda: np.ones(3),
    "zeros(3, int)": lambda: np.zeros(3, int),
    "ones((1, 1, 3))": lambda: np.ones((1, 1, 3)),
    "ones((1, 1, 3, 3), f4)": lambda: np.ones((1, 1, 3, 3), "f4"),
    "float16": lambda: np.ones((1, 1, 3), "f2"),
    "bfloat16 array": lambda: np.ones((1, 1, 3), ml_dtypes.bfloat16),
    "float8": lambda: np.ones((1, 1, 3), ml_dtypes.float8_e5m2),
    "int4": lambda: np.ones((1, 1, 3), ml_dtypes.int4),
    "longdouble": lambda: np.ones((1, 1, 3), np.longdouble),
    "complex": lambda: np.ones((1, 1, 3), complex),
    "bools": lambda: np.ones((1, 1, 3), bool),
    "big-endian": lambda: np.ones((1, 1, 3), ">f8"),
    "int64": lambda: np.full((1, 1, 3), 2**62),
    "uint64": lambda: np.full((1, 1, 3), 2**63, np.uint64),
    "empty": lambda: np.zeros((0, 1, 3)),
    "no channels": lambda: np.zeros((1, 0, 3)),
    "nans": lambda: np.full((1, 1, 3), np.nan),
    "infs": lambda: np.full((1, 1, 3), -np.inf),
    "1e300s": lambda: np.full((1, 1, 3), 1e300),
    "read-only": read_only,
    "reversed": lambda: np.ones((1, 1, 3))[..., ::-1],
    "object array": lambda: np.array([[[None, 1, "a"]]], object),
    "array of lists": lambda: np.array([[1], [1, 2], None], object),
    "strings": lambda: np.array([[["a", "b", "c"]]]),
    "bytes array": lambda: np.array([b"a", b"b"]),
    "StringDType": lambda: np.array(["a", "b"], np.dtypes.StringDType()),
    "datetimes": lambda: np.array(["2020-01-01"], "M8[s]"),
    "timedeltas": lambda: np.array([[[1, 2, 3]]], "m8[s]"),
    "structured": lambda: np.zeros((1, 1, 3), [("a", "f8"), ("b", "i4")]),
    "voids": lambda: np.zeros(3, "V8"),
    "recarray": lambda: np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "masked": masked,
    "np.ma.masked": lambda: np.ma.masked,
    "matrix": lambda: np.asmatrix([[1.0, 2.0], [3.0, 4.0]]),
    "Lying": lambda: np.ones((2, 2)).view(Lying),
    "64 axes": lambda: np.ones((1,) * 64),
    "many axes": lambda: np.ones((2,) * 16),
    "huge": lambda: huge(2**20, 2**20, 2**20, dtype=np.float32),
    "huge and flat": lambda: huge(2**59),
    "huge integers": lambda: huge(2**59, dtype=int),
    "huge of 1 channel": lambda: huge(1, 1, 2**50, dtype=np.float32),
    "huge image": lambda: huge(1, 2**30, 2**30, dtype=np.uint8),
    "huge objects": lambda: huge(2**58, dtype=object),
    "empty and huge": lambda: np.broadcast_to(0.0, (0, 2**58)),
    "flatiter": lambda: np.ones(3).flat,
    "nditer": lambda: np.nditer(np.ones(3)),
    # ---- objects whose methods are odd
    "object": object,
    "Slots": Slots,
    "raising index": lambda: raising("__index__"),
    "raising float": lambda: raising("__float__"),
    "raising array": lambda: raising("__array__"),
    "raising len": lambda: raising("__len__", "__iter__"),
    "raising iter": lambda: raising("__iter__"),
    "raising getitem": lambda: raising("__getitem__"),
    "raising eq": lambda: raising("__eq__", "__ne__"),
    "raising hash": lambda: raising("__hash__"),
    "raising repr": lambda: raising("__repr__", "__str__"),
    "raising bool": lambda: raising("__bool__"),
    "raising getattr": lambda: raising("__getattr__"),
    "raising fspath": lambda: raising("__fspath__"),
    "raising call": lambda: raising("__call__"),
    "raising namespace": lambda: raising("__array_namespace__"),
    "raising keys": lambda: raising("keys", "items", "__iter__", "__len__"),
    "index of a string": lambda: giving(index="2"),
    "index of 2": lambda: giving(index=2),
    "index of 10**5000": lambda: giving(index=10**5000),
    "float of nan": lambda: giving(float=math.nan),
    "float of a string": lambda: giving(float="1"),
    "array of a string": lambda: giving(array="1"),
    "array of an array": lambda: giving(array=np.ones((1, 1, 3))),
    "array of objects": lambda: giving(array=np.array([None])),
    "array of a huge one": lambda: giving(array=huge(2**59)),
    "length of -1": lambda: giving(len=-1),
    "length of 2**62": lambda: giving(len=2**62, getitem=1.0),
    "length of a string": lambda: giving(len="3"),
    "repr of None": lambda: giving(repr=None),
    "iter of 3": lambda: giving(iter=3),
    "fspath of 3": lambda: giving(fspath=3),
    "fspath of bytes": lambda: giving(fspath=b"no"),
    "bool of 3": lambda: giving(bool=3),
    "eq of an array": lambda: giving(eq=np.ones(3), hash=1),
    "call of None": lambda: giving(call=None),
    "a long repr": lambda: giving(repr="x" * 10_000_000),
    "interface": lambda: type(
        "I", (), {"__array_interface__": {"shape": (2,), "typestr": "<f8", "version": 3}}
    )(),
    "shape and dtype": lambda: types.SimpleNamespace(
        shape=(1, 1, 3), dtype="float64", ndim=3, size=3
    ),
    "dtype of a string": lambda: types.SimpleNamespace(dtype="no"),
    "Mock": mock.Mock,
    "MagicMock": mock.MagicMock,
    # ---- what else there is
    "type": lambda: type,
    "int": lambda: int,
    "float": lambda: float,
    "np.float32": lambda: np.float32,
    "np.dtype": lambda: np.dtype("f4"),
    "a structured dtype": lambda: np.dtype([("a", "f4")]),
    "np.ndarray": lambda: np.ndarray,
    "function": lambda: a_function,
    "lambda": lambda: lambda: 1,
    "partial": lambda: functools.partial(a_function, 1),
    "len": lambda: len,
    "method": lambda: [].append,
    "module": lambda: math,
    "np": lambda: np,
    "coroutine type": lambda: types.CoroutineType,
    "exception": lambda: ValueError("no"),
    "exception class": lambda: ValueError,
    "StringIO": lambda: io.StringIO("1"),
    "BytesIO": lambda: io.BytesIO(b"1"),
    "date": lambda: datetime.date(2020, 1, 1),
    "uuid": lambda: uuid.UUID(int=1),
    "Generator": lambda: np.random.default_rng(0),
    "RandomState": lambda: np.random.RandomState(0),
    "SeedSequence": lambda: np.random.SeedSequence(0),
    "PCG64": lambda: np.random.PCG64(0),
    "PCG64 class": lambda: np.random.PCG64,
    "np.random": lambda: np.random,
}
"""Name to what makes the value."""

WRAPPINGS = {
    "(v,)": lambda v: (v,),
    "[v, v]": lambda v: [v, v],
    "(1, v)": lambda v: (1, v),
    "((0, v),)": lambda v: ((0, v),),
    "[[v]]": lambda v: [[v]],
    "{'x': v}": lambda v: {"x": v},
    "(v for ...)": lambda v: (each for each in (v,)),
    "('leaky_relu', v)": lambda v: ("leaky_relu", v),
}
"""Name to what puts a value into another one."""
