"""Generated code of the thread pool: a caller's and a worker's exchanges on the worker's box.

`thread_pool.py` tells the protocol and calls this code.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tconv.engine.codegen.code import Code
from tconv.engine.codegen.llvm import (
    I32,
    I64,
    PTR,
    Builder,
    Function,
    FunctionType,
    Index,
    Module,
    Type,
    Value,
)
from tconv.engine.runtime.control_block import (
    ACQUIRE,
    ARGS,
    BOX_WORDS,
    CALLER_LOCK,
    JOB,
    LOCK,
    NAME,
    RELEASE,
    SPINS,
)

__all__ = ["emit"]

_AWAKE, _OFFERED, _WORKING, _AWAITED, _ASLEEP, _LEAVING = range(6)


def emit(module: Module) -> None:
    """Emit ``tconv_thread_pool(n)``: the address of the n-th of run, work, dismiss and watch."""
    watch = _watch(module)
    functions = _run(module, watch), _work(module, watch), _dismiss(module), watch
    code = _Code(module, NAME, I64)
    for number, function in enumerate(functions):
        with code.when(code.is_equal(code.function.args[0], number)):
            code.leave(code.builder.ptrtoint(function, I64))
    code.leave(0)


def _run(module: Module, watch: Function) -> Function:
    """Emit the caller's side of a job.

    if exchange(busy, 1): job(args, 0); return        # others compute with the workers
    for box in boxes:
        box.job, box.args = job, args
        if exchange(box, OFFERED) == ASLEEP: release(box.lock)
    job(args, 0)
    for box in boxes: exchange_if(box, OFFERED, AWAKE)      # all of them before the first wait
    for box in boxes:
        watch(box, WORKING)
        if exchange_if(box, WORKING, AWAITED): acquire(caller's lock)
    busy = 0
    """
    code = _Code(module, "run", PTR, PTR, PTR, I64)
    control, job, args, workers = code.function.args
    with code.when(code.is_equal(code.exchange(control, 1), 1)):
        code.call(job, args, 0)
        code.leave()
    with code.boxes(control, workers) as box:
        code.store(job, code.at(box, JOB, I64))
        code.store(args, code.at(box, ARGS, I64))
        with code.when(code.is_equal(code.exchange(box, _OFFERED), _ASLEEP)):
            code.release(control, code.word(box, LOCK))
    code.call(job, args, 0)
    with code.boxes(control, workers) as box:
        code.exchange_if(box, _OFFERED, _AWAKE)
    start = [code.box(control, 1), code.word(control, SPINS, I64)]
    with code.loop_carrying(workers, start) as ((box, turns), following):
        turns = code.builder.call(watch, [box, code.index(_WORKING), turns])
        with code.when(code.exchange_if(box, _WORKING, _AWAITED)):
            code.acquire(control, code.word(control, CALLER_LOCK))
        following += [code.at(box, BOX_WORDS, I64), turns]
    code.exchange(control, 0)
    return code.leave()


def _work(module: Module, watch: Function) -> Function:
    """Emit a worker's life.

    while True:
        watch(box, AWAKE)
        if exchange_if(box, OFFERED, WORKING):
            box.job(box.args, index)
            if exchange(box, AWAKE) == AWAITED: release(caller's lock)
        elif box == LEAVING: return
        elif exchange_if(box, AWAKE, ASLEEP): acquire(box.lock)
    """
    code = _Code(module, "work", PTR, I64)
    control, index = code.function.args
    box, turns = code.box(control, index), code.word(control, SPINS, I64)
    with code.forever() as done:
        code.builder.call(watch, [box, code.index(_AWAKE), turns])
        claimed = code.exchange_if(box, _OFFERED, _WORKING)
        with code.if_else(claimed) as (then, otherwise):
            with then:
                code.call(code.word(box, JOB), code.word(box, ARGS), index)
                with code.when(code.is_equal(code.exchange(box, _AWAKE), _AWAITED)):
                    code.release(control, code.word(control, CALLER_LOCK))
            with otherwise:
                code.leave_when(code.is_equal(code.state(box), _LEAVING), done)
                with code.when(code.exchange_if(box, _AWAKE, _ASLEEP)):
                    code.acquire(control, code.word(box, LOCK))
    return code.leave()


def _dismiss(module: Module) -> Function:
    """Emit the exit: end idle workers and stay busy for ever; return whether they were idle.

    if exchange(busy, 1): return 0
    for box in boxes:
        if exchange(box, LEAVING) == ASLEEP: release(box.lock)
    return 1
    """
    code = _Code(module, "dismiss", PTR, I64)
    control, workers = code.function.args
    with code.when(code.is_equal(code.exchange(control, 1), 1)):
        code.leave(0)
    with code.boxes(control, workers) as box:
        was_asleep = code.is_equal(code.exchange(box, _LEAVING), _ASLEEP)
        with code.when(was_asleep):
            code.release(control, code.word(box, LOCK))
    return code.leave(1)


def _watch(module: Module) -> Function:
    """Emit a bounded spin while a line's word 0 is `state`; it returns the turns left."""
    code = _Code(module, "watch", PTR, I64, I64)
    line, state, turns = code.function.args
    with code.loop(turns) as turn:
        with code.when(code.builder.icmp_signed("!=", code.state(line), state)):
            code.leave(code.sub(turns, turn))
        code.pause()
    return code.leave(0)


class _Code(Code):
    """A function, with atomic operations on word 0 of a line, which several threads write."""

    def __init__(self, module: Module, name: str, *kinds: Type) -> None:
        self.function = Function(module, FunctionType(I64, kinds), name)
        self.function.linkage = "" if name == NAME else "internal"
        self.builder = Builder(self.function.append_basic_block("entry"))

    def leave(self, value: Index = 0) -> Function:
        """``return value``."""
        self.builder.ret(self.index(value))
        return self.function

    def box(self, control: Value, worker: Index) -> Value:
        """Return a worker's line."""
        return self.at(control, self.mul(self.add(worker, 1), BOX_WORDS), I64)

    @contextmanager
    def boxes(self, control: Value, workers: Value) -> Iterator[Value]:
        """``for box in boxes``."""
        with self.loop(self.add(workers, 1), start=1) as worker:
            yield self.box(control, worker)

    def word(self, line: Value, number: int, kind: Type = PTR) -> Value:
        """Read a word that nobody changes meanwhile."""
        return self.load(self.at(line, number, I64), kind=kind)

    def state(self, line: Value) -> Value:
        """Read word 0, with acquire semantics."""
        return self.builder.load_atomic(line, "acquire", 8, typ=I64)

    def exchange(self, line: Value, new: int) -> Value:
        """Write word 0; return what it was."""
        return self.builder.atomic_rmw("xchg", line, self.index(new), "acq_rel")

    def exchange_if(self, line: Value, old: int, new: int) -> Value:
        """Write word 0 if it is `old`; return whether it was."""
        words = self.index(old), self.index(new)
        pair = self.builder.cmpxchg(line, *words, "acq_rel", "acquire")
        return self.builder.extract_value(pair, 1)

    def acquire(self, control: Value, lock: Value) -> None:
        """Sleep until a lock is released; one that has been released does not wait."""
        self.call(self.word(control, ACQUIRE), lock, I32(1))

    def release(self, control: Value, lock: Value) -> None:
        """Wake the thread that sleeps at a lock, or is about to."""
        self.call(self.word(control, RELEASE), lock)
