"""Every public call with good arguments, and a program that puts hostile values in their places.

As a program it makes the calls START to STOP of a list that SEED gives, and writes what went wrong
to a file as one JSON object a line; the call that is being made stands in another file, so that
whoever started the program knows which one it did not survive. Modules named after these
`register` other calls.
"""

import faulthandler
import json
import os
import random
import resource
import sys
import tempfile
import time
import warnings
from functools import partial
from importlib import import_module
from pathlib import Path

import hostile_scipy
import numpy as np

import hostile_arrays
import hostile_layers
import hostile_models
import hostile_streams
import tconv
import tconv.checkerboard
import tconv.images
import tconv.onnx
import tconv.tinynet
from hostile_registry import CALLS, SLOW, call
from hostile_values import VALUES, WRAPPINGS, Raised
from tconv.errors import TConvError

__all__ = ["CALLS", "NOT_CALLED", "call", "main", "public_callables"]

# Which fill `CALLS`.
REGISTRIES = hostile_arrays, hostile_layers, hostile_models, hostile_scipy, hostile_streams

MOST_SECONDS = 2.0  # of the process's own time, for one call
MOST_BYTES = 2**32  # of addresses, beyond what a process has when it begins
MACHINE_KB = 2**19  # of memory that the machine is said to have, so that large calls are refused

# Arguments that are functions, and whose exceptions are therefore the caller's.
PASSED_FUNCTIONS = {"progress", "initialiser"}

# ---- what is public ------------------------------------------------------------------------------

# Records, which their makers fill and nobody checks, and errors. `show` opens a browser.
NOT_CALLED = {"PlannedCall", "Packed", "See", "Explainer", "Geometry", "Solution", "Explainer.show"}
NOT_CALLED |= {f"onnx.{name}" for name in tconv.onnx.__all__ if name[0].isupper()} - {
    *("onnx.Session", "onnx.Stream")
}
# A stream is made by what computes it, and `trace` adds to what `stream` makes. That of a model has
# the methods of all.
NOT_CALLED |= {"Stream"}
NOT_CALLED |= {f"{n}.trace" for n in ("Layer", "Convolution", "Sequential", "Residual", "Snake")}


def public_callables():
    """Names of all functions, classes and methods that users call."""
    found = set()
    for prefix, module in (
        ("", tconv),
        ("checkerboard.", tconv.checkerboard),
        ("images.", tconv.images),
        ("tinynet.", tconv.tinynet),
        ("onnx.", tconv.onnx),
    ):
        for name in module.__all__:
            value = getattr(module, name)
            if not callable(value) or (isinstance(value, type) and issubclass(value, Exception)):
                continue
            found.add(prefix + name)
            if isinstance(value, type) and prefix + name not in {*NOT_CALLED, "onnx.Stream"} - {
                "PlannedCall",
                "Stream",
                "See",
                "Explainer",
                "Geometry",
            }:
                found |= {
                    prefix * (prefix in ("tinynet.", "onnx.")) + each for each in methods(value)
                }
    return found


def methods(kind):
    """Public methods and calls of a class, each under the name of the class that defines it."""
    seen = set()
    for each in kind.__mro__:
        if each.__module__.startswith("tconv."):
            for name, value in vars(each).items():
                if name in seen:
                    continue
                seen.add(name)
                value = getattr(value, "__func__", value)
                is_public = not name.startswith("_") or name in ("__call__", "__getitem__")
                if (is_public and callable(value) and not isinstance(value, type)) or (
                    is_public and isinstance(value, property) and value.fset is not None
                ):
                    yield f"{each.__name__}.{name}"


# ---- the program ---------------------------------------------------------------------------------


def drawn(number, seed, folder):
    """Draw a call: its name, the places that hold hostile values, and what to call."""
    random.seed(f"{seed} {number}")
    names = sorted(CALLS)
    while True:
        name = random.choice(names)
        make, often, outside = random.choice(CALLS[name])
        if random.random() < often:
            break
    good = make(folder)
    args, keywords = list(good.args), dict(good.keywords)
    places = [*range(len(args)), *keywords]
    told = {}
    for place in random.sample(places, min(len(places), random.choice([1, 1, 1, 2]))):
        word = random.choice(list(VALUES))
        value = VALUES[word]()
        if random.random() < 0.25:
            how = random.choice(list(WRAPPINGS))
            value, word = WRAPPINGS[how](value), f"{how} with v = {word}"
        told[str(place)] = word
        (keywords if isinstance(place, str) else args)[place] = value
    function = partial(good.func, *args, **keywords)
    if any(callable(keywords.get(each)) for each in PASSED_FUNCTIONS & set(told)):
        outside = (Exception,)
    return name, told, function, outside


def is_own(error):
    """Whether a caller's own method raised it, or something that another one became."""
    while error is not None:
        if isinstance(error, Raised):
            return True
        error = error.__cause__ or error.__context__
    return False


def complaint(number, seed, folder, note):
    """What is wrong with what a call did; None if nothing is. `note` is told before it is made."""
    name, told, function, outside = drawn(number, seed, folder)
    note({"number": number, "call": name, "values": told})
    began, error = time.process_time(), None
    try:
        result = function()
        wrong = odd(result)
    except TConvError as raised:
        wrong = odd_message(str(raised))
    except outside:
        wrong = None
    except Exception as raised:
        if is_own(raised):
            wrong = None
        else:
            error = raised
            trace, files = raised.__traceback__, []
            while trace is not None:
                files.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
                trace = trace.tb_next
            wrong = f"{type(raised).__name__}: {str(raised)[:200]} ({' '.join(files[-6:])})"
    del error
    took = time.process_time() - began
    if took > MOST_SECONDS:
        wrong = f"took {took:.1f} s of the process's time; {wrong or 'no error'}"
    return None if wrong is None else {"call": name, "values": told, "number": number, "why": wrong}


def odd(result):
    """What no call may return."""
    if isinstance(result, np.ndarray) and result.dtype.kind not in "biufcV":
        return f"returned an array of {result.dtype}"
    if result is NotImplemented:
        return "returned NotImplemented"
    return None


def odd_message(text):
    """What no message is."""
    if len(text) > 2000:
        return f"a message of {len(text)} characters: {text[:100]}"
    return None


def run(start, stop, seed, progress, report):
    """Make calls, one after the other; then whether good ones still work."""
    with tempfile.TemporaryDirectory() as folder, open(report, "a") as out:

        def note(call):
            Path(progress).write_text(json.dumps(call))

        small_machine(Path(folder))
        os.chdir(folder)
        for number in range(start, stop):
            faulthandler.dump_traceback_later(60, exit=True)
            wrong = complaint(number, seed, folder, note)
            faulthandler.cancel_dump_traceback_later()
            if wrong is not None:
                print(json.dumps(wrong), file=out, flush=True)
        note({"number": stop, "call": "good arguments", "values": {}})
        for name, makes in CALLS.items():
            for make, often, _ in makes:
                try:
                    if often > SLOW:
                        make(folder)()
                except Exception as error:
                    wrong = {
                        "call": name,
                        "values": {},
                        "number": stop,
                        "why": f"afterwards {error!r}",
                    }
                    print(json.dumps(wrong), file=out, flush=True)


def small_machine(folder):
    """Let tconv believe that the machine has little memory, and give the process not much more."""
    (folder / "proc").mkdir()
    (folder / "proc" / "meminfo").write_text(f"MemAvailable: {MACHINE_KB} kB\n")
    told = partial(tconv.system.memory.available_bytes, folder / "proc", folder)
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("tconv.") and hasattr(
            module, "available_bytes"
        ):
            module.available_bytes = told
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(start, stop, seed, progress, report, *registries):
    """Do as the program does."""
    warnings.simplefilter("ignore")
    faulthandler.enable()
    for name in registries:
        import_module(name).register()
    run(int(start), int(stop), seed, progress, report)


if __name__ == "__main__":
    from hostile_calls import main as program  # not this copy, which no other module knows

    program(*sys.argv[1:])
