"""Interruption: Ctrl-C ends work at once, and tells ONNX Runtime and the work to stop."""

import os
import signal
import subprocess
import sys
from threading import Event, Thread, current_thread, main_thread

import pytest

from tconv.deconvnet.network.interruption import check_interrupted, interruptible
from tconv.deconvnet.network.runtime import run


@pytest.fixture(autouse=True)
def _python_hears_ctrl_c():
    """A shell that starts the tests in the background leaves SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def pressed():
    """An event; once it is set, Ctrl-C is pressed."""
    begun = Event()

    def press():
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)

    Thread(target=press, daemon=True).start()
    return begun


def test_an_error_of_the_work_is_raised():
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match=r"^no$"):
        interruptible(fail)


def test_work_waits_in_another_thread_and_is_told(pressed):
    told = Event()

    def work():
        pressed.set()
        while True:
            try:
                check_interrupted()
            except KeyboardInterrupt:
                told.set()
                raise

    with pytest.raises(KeyboardInterrupt):
        interruptible(work)
    assert told.wait(60)


def test_work_that_hears_nothing_is_left_behind(pressed):
    end = Event()

    def work():  # as native code that computes for long
        pressed.set()
        end.wait()

    with pytest.raises(KeyboardInterrupt):
        interruptible(work)
    assert not end.is_set()
    end.set()


def test_a_process_ends_in_order_while_work_goes_on():
    """Exit code 130 of a process that Ctrl-C ended, whatever its native code does meanwhile."""
    code = (
        "import os, signal, threading\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tconv.deconvnet.network.interruption import interruptible\n"
        "pressed = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT))\n"
        "def work():\n"
        "    pressed.start()\n"
        "    threading.Event().wait()\n"
        "try:\n"
        "    interruptible(work)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "interrupted\n", "")


def test_a_run_of_onnx_runtime_is_stopped():
    class Session:
        def run(self, names, feed, options):
            assert not options.terminate
            current_thread().interrupt()
            assert options.terminate
            raise RuntimeError("Exiting due to terminate flag being set to true.")

    with pytest.raises(KeyboardInterrupt):
        interruptible(lambda: run(Session(), ["y"], {}))


def test_outside_of_the_main_thread_nothing_is_started():
    found = []
    thread = Thread(target=lambda: found.append(interruptible(current_thread)))
    thread.start()
    thread.join()
    assert found == [thread]
    assert interruptible(current_thread) is not main_thread()
