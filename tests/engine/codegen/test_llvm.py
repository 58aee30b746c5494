"""LLVM's text: what llvmlite reads back, and what is known before it is written."""

import operator
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import binding

from tconv.engine.codegen.llvm import (
    DOUBLE,
    FLOAT,
    HALF,
    I32,
    I64,
    PTR,
    VOID,
    Builder,
    Constant,
    Function,
    FunctionType,
    IntType,
    Module,
    VectorType,
)

OPERATIONS = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "udiv": operator.floordiv,
}


def function_of(kinds, name="f"):
    module = Module()
    function = Function(module, FunctionType(VOID, kinds), name)
    return module, function, Builder(function.append_basic_block("entry"))


def lines(builder):
    return [str(line) for line in builder.block.lines]


@given(st.sampled_from([*OPERATIONS]), st.integers(0, 2**40), st.integers(0, 2**20))
def test_what_follows_from_constants_is_known(name, a, b):
    _, _, builder = function_of([])
    if name == "udiv" and b == 0:  # as it is for LLVM
        return
    found = getattr(builder, name)(I64(a), I64(b))
    assert found.text == str(OPERATIONS[name](a, b))
    assert found.known == OPERATIONS[name](a, b)
    assert lines(builder) == []


@given(st.sampled_from([*OPERATIONS]), st.integers(0, 3), st.booleans())
def test_a_neutral_constant_costs_no_instruction(name, number, is_left):
    _, function, builder = function_of([I64])
    (x,) = function.args
    if name == "udiv" and (is_left or number == 0):
        return
    values = (I64(number), x) if is_left else (x, I64(number))
    found = getattr(builder, name)(*values)
    neutral = {"add": 0, "mul": 1, "sub": None if is_left else 0, "udiv": 1}[name]
    if number == neutral:
        assert found is x
    elif name == "mul" and number == 0:
        assert found.text == "0"
    else:
        texts = ", ".join(value.text for value in values)
        assert lines(builder) == [f"{found.text} = {name} i64 {texts}"]


@pytest.mark.parametrize(("kind", "letter"), [(HALF, "e"), (FLOAT, "f"), (DOUBLE, "d")])
@given(st.floats(-60000, 60000))
def test_constants_are_rounded_to_their_type(kind, letter, value):
    (rounded,) = struct.unpack(letter, struct.pack(letter, value))
    assert struct.unpack(">d", bytes.fromhex(kind(value).text[2:])) == (rounded,)


def test_llvm_reads_every_kind_of_value():
    module, function, builder = function_of([PTR, I32, VectorType(FLOAT, 4), VectorType(I32, 4)])
    place, number, floats, integers = function.args
    place.add_attribute("noalias")
    for name in ("urem", "and_", "or_", "xor", "shl", "lshr", "ashr", "add", "sub", "mul", "udiv"):
        getattr(builder, name)(number, number)
        getattr(builder, name)(integers, integers)
    for name in ("fadd", "fsub", "fmul", "fdiv"):
        getattr(builder, name)(floats, floats)
    for order in ("==", "!=", "<", "<=", ">", ">="):
        for name in ("icmp_signed", "icmp_unsigned"):
            builder.select(getattr(builder, name)(order, integers, integers), floats, floats)
        for name in ("fcmp_ordered", "fcmp_unordered"):
            getattr(builder, name)(order, floats, floats)
    wide = builder.sext(number, I64)
    builder.trunc(builder.zext(number, I64), IntType(16))
    builder.fptrunc(builder.fpext(floats, VectorType(DOUBLE, 4)), VectorType(HALF, 4))
    builder.store(builder.bitcast(floats, VectorType(I32, 4)), place, align=4)
    builder.load(builder.gep(place, [wide], source_etype=FLOAT), typ=FLOAT)
    one = builder.insert_element(Constant(floats.type, None), FLOAT(1.5), I32(0))
    builder.extract_element(builder.shuffle_vector(one, floats, VectorType(I32, 2)([0, 5])), I32(1))
    builder.load_atomic(place, "acquire", 8, I64)
    builder.atomic_rmw("add", place, I64(1), "monotonic")
    pair = builder.cmpxchg(place, I64(0), I64(1), "acq_rel", "acquire")
    builder.not_(builder.extract_value(pair, 1))
    builder.store(builder.ptrtoint(place, I64), builder.alloca(I64, 3))
    builder.ret_void()
    with binding.create_context() as context, binding.parse_assembly(str(module), context) as read:
        read.verify()
        assert [each.name for each in read.functions] == ["f"]


def test_a_function_is_defined_once():
    module, _, _ = function_of([])
    with pytest.raises(ValueError, match=r"^function f is defined twice$"):
        Function(module, FunctionType(VOID, []), "f")
