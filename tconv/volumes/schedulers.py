"""Schedulers of a run: Dask's threads on this machine, or a cluster of dask.distributed.

Both get tasks in the order of their numbers and tell of each that ends; only some are in flight, so
that neither memory nor time grows faster than the number of chunks.
"""

import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from dask.threaded import get

from tconv.errors import ParameterError
from tconv.messages import show
from tconv.system.memory import available_bytes, resident_bytes
from tconv.volumes.work import Work

__all__ = ["Cluster", "Threads"]

Done = Callable[[int, bool], None]
"""Is told the number of a task that has ended, and whether it wrote its chunk."""

_AT_ONCE = 2048  # tasks in a graph of Dask's threads
_IN_FLIGHT = 4  # tasks for each thread of a cluster
_ADDRESS = re.compile(r":\d+$|^inproc://")
_KEY = "tconv"
_MEMORY_SHARE = 0.8  # of what is available; a larger `memory` is not taken
_RETRIES = 2  # of a task whose worker died
_TIMEOUT_S = 10
_WORKER_BYTES = 2**27 + 2**26  # of a process before its first task


class Threads:
    """Dask's own threads."""

    processes = 1

    def __init__(self, workers: int) -> None:
        # What the program itself holds besides, such as arrays of a notebook, is not the run's.
        self.workers, self.held_bytes = workers, min(resident_bytes(), _WORKER_BYTES)
        available = available_bytes()
        share = sys.maxsize if available is None else int(available * _MEMORY_SHARE)
        self.most_bytes = self.held_bytes + share

    def run(self, work: Work, tasks: Iterator[tuple[int, bool]], done: Done) -> None:
        """Run tasks; one that fails ends the run, after those that have begun."""

        def ended(key: Any, result: Any, *_: Any) -> None:
            done(key[1], result)

        callbacks = [(None, None, None, ended, None)]  # of this run, and of no other of Dask's
        with ThreadPoolExecutor(self.workers) as pool:  # which waits for tasks that have begun
            while group := list(islice(tasks, _AT_ONCE)):
                graph = {(_KEY, number): (work.run, number, is_there) for number, is_there in group}
                get(graph, list(graph), pool=pool, callbacks=callbacks)


class Cluster:
    """A cluster of dask.distributed, by the address of its scheduler or by a client."""

    def __init__(self, scheduler: Any) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise ImportError(
                "A cluster needs dask.distributed: pip install distributed."
            ) from None
        self._owns = not isinstance(scheduler, Client)
        if self._owns and not (isinstance(scheduler, str) and _ADDRESS.search(scheduler)):
            raise ParameterError(
                f"scheduler={show(scheduler)} must be an address such as tcp://host:8786, or a "
                "distributed.Client; pass one."
            )
        try:
            self._client = (
                Client(scheduler, timeout=_TIMEOUT_S, set_as_default=False)
                if self._owns
                else scheduler
            )
        except (OSError, ValueError, TimeoutError) as error:
            raise ParameterError(
                f"scheduler={scheduler!r} does not answer within {_TIMEOUT_S} s ({error}); start "
                "one by `dask scheduler` and `dask worker`, or pass its address."
            ) from error
        told = self._client.scheduler_info(n_workers=-1)["workers"]
        self.processes = len(told)
        self.workers = sum(each["nthreads"] for each in told.values())
        self.held_bytes, self.most_bytes = self.processes * _WORKER_BYTES, sys.maxsize
        if not told:
            self.close()
            raise ParameterError(
                f"scheduler={scheduler!r} has no workers; start some by `dask worker`."
            )

    def run(self, work: Work, tasks: Iterator[tuple[int, bool]], done: Done) -> None:
        """Run tasks; the first that fails, after some tries, ends the run."""
        from distributed import as_completed

        client = self._client
        shared = client.submit(_itself, work, key=f"{_KEY}-work-{work.target.run}")
        futures = as_completed(loop=client.loop)
        numbers: dict[Any, int] = {}

        def start(count: int) -> None:
            for number, is_there in islice(tasks, count):
                key = f"{_KEY}-{work.target.run}-{number}"
                future = client.submit(
                    _run, shared, number, is_there, key=key, retries=_RETRIES, pure=False
                )
                numbers[future.key] = number
                futures.add(future)

        try:
            start(_IN_FLIGHT * self.workers)
            for future in futures:
                done(numbers.pop(future.key), future.result())
                start(1)
        finally:
            pending = list(futures.futures)
            if pending:
                client.cancel(pending)

    def close(self) -> None:
        """Leave the cluster, if it was joined here."""
        if self._owns:
            self._client.close()


def _itself(work: Work) -> Work:
    return work


def _run(work: Work, number: int, is_there: bool) -> bool:
    return work.run(number, is_there)
