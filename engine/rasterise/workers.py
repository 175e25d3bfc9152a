"""Threads for the CPU kernels: a few sleeping Python threads, because the kernels release the interpreter's lock.

Why not numba's own ``prange``. Its "omp" layer loads the system's OpenMP library while torch brings its own copy: two
pools that each take every core for theirs and keep idle threads spinning, so that in turns they work against each
other; it also ends a process that draws after a fork. Its "workqueue" layer ends a process in which two Python threads
draw at once. Both give each thread a fixed share, so that one thread that has to wait for a core holds up all. These
threads sleep while they have nothing to do, take the next piece when they are free, belong to the process that made
them, and serve any number of callers. ``benchmarks/rasteriser.py`` compares the three beside torch.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

_lock = threading.Lock()
_executor: ThreadPoolExecutor | None = None
_executor_size = 0


def thread_count() -> int:
    """As many threads as torch uses on the CPU, so that OMP_NUM_THREADS and torch.set_num_threads hold for both."""
    return torch.get_num_threads()


def run(function: Callable[..., None], tasks: Iterable[tuple]) -> None:
    """Call ``function(*task)`` for every task, in any order, on this thread and on helpers; return when all are done.

    Tasks write to places of their own; the result must not depend on who does what. After an exception no further task
    begins, and it is raised here.
    """
    todo = deque(tasks)

    def work() -> None:
        while True:
            try:
                task = todo.popleft()
            except IndexError:
                return
            try:
                function(*task)
            except BaseException:
                todo.clear()
                raise

    helpers = min(thread_count(), len(todo)) - 1
    futures = _submit(work, helpers) if helpers > 0 else []
    try:
        work()
    finally:
        # A helper that has not begun finds nothing left to do: no need to wait for it.
        running = [future for future in futures if not future.cancel()]
        for future in running:
            future.exception()
    for future in running:
        future.result()


def _submit(work: Callable[[], None], helpers: int) -> list[Future]:
    global _executor, _executor_size
    with _lock:  # so that nobody hands work to a pool that has just been replaced by a larger one
        if helpers > _executor_size:
            if _executor is not None:
                _executor.shutdown(wait=False)
            _executor, _executor_size = ThreadPoolExecutor(helpers, thread_name_prefix="rasterise"), helpers
        return [_executor.submit(work) for _ in range(helpers)]


def _forget() -> None:
    """In a forked child the parent's threads do not exist, and its lock may be held for ever."""
    global _lock, _executor, _executor_size
    _lock, _executor, _executor_size = threading.Lock(), None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
