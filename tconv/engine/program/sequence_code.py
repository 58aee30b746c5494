"""Generated code of a sequence: every thread goes through all steps, and waits between them.

    for step in steps:
        stage.entered += 1
        step.function(step.arguments, thread)            # takes tasks until there are none
        stage.left += 1
        if step.is_last_of_stage:
            until stage.left == stage.entered: pause

Whoever returns from a step has seen that no task of it is left, so once all have left a stage that
had entered it before, its results are there. A thread that comes late enters the stages that are
done, finds no task in them, and catches up.
"""

from tconv.engine.codegen.abi import Record
from tconv.engine.codegen.code import Code, begin
from tconv.engine.codegen.llvm import I64, PTR, Module, Value

__all__ = ["HEAD", "NAME", "STEP", "emit"]

NAME = "tconv_run_sequence"
HEAD = Record(pointers=("steps", "give_way"), words=("count",))
STEP = Record(pointers=("function", "arguments", "entered", "left"), words=("is_last_of_stage",))
_TURNS = 2000  # of a wait, after which the thread lets others run


def emit(module: Module) -> None:
    """Emit ``run(head, thread)``; `give_way` of the head is sched_yield of the C library, or 0."""
    code, a = begin(module, NAME, {"head": PTR, "thread": I64})
    head = HEAD.load(code, a["head"])
    with code.loop(head["count"]) as number:
        step = STEP.load(code, head["steps"], number)
        code.builder.atomic_rmw("add", step["entered"], code.index(1), "acq_rel")
        code.call(step["function"], step["arguments"], a["thread"])
        code.builder.atomic_rmw("add", step["left"], code.index(1), "acq_rel")
        with code.when(code.is_equal(step["is_last_of_stage"], 1)):
            _wait(code, step["entered"], step["left"], head["give_way"])
    code.end()


def _wait(code: Code, entered: Value, left: Value, give_way: Value) -> None:
    """Wait until all threads that entered have left; read `left` first, for it never exceeds."""
    turns = code.builder.alloca(I64)
    code.builder.store(code.index(0), turns)
    with code.forever() as done:
        out = code.builder.load_atomic(left, "acquire", 8, typ=I64)
        into = code.builder.load_atomic(entered, "acquire", 8, typ=I64)
        code.leave_when(code.is_equal(out, into), done)
        code.pause()
        turn = code.add(code.load(turns, kind=I64), 1)
        code.builder.store(turn, turns)
        has_waited = code.is_less(_TURNS, turn)
        with code.when(code.both(has_waited, code.is_given(give_way))):
            code.call(give_way)
