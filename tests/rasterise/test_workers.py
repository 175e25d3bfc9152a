"""The kernels' threads: every task once, errors reach the caller, callers do not disturb each other."""

import threading
import time

import pytest
import torch
from headstudio.rasterise import workers


@pytest.fixture(autouse=True)
def _three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_every_task_runs_once():
    done = []
    workers.run(lambda k: done.append(k), [(k,) for k in range(1000)])
    assert sorted(done) == list(range(1000))
    workers.run(done.append, [])
    assert len(done) == 1000


def test_helpers_take_part():
    barrier, names = threading.Barrier(3, timeout=20), set()

    def meet(k):
        barrier.wait()
        names.add(threading.current_thread().name)

    workers.run(meet, [(k,) for k in range(3)])
    assert len(names) == 3


def test_an_error_reaches_the_caller_and_stops_the_rest():
    done = []

    def fail(k):
        if k == 5:
            raise ZeroDivisionError("five")
        time.sleep(0.001)
        done.append(k)

    with pytest.raises(ZeroDivisionError, match="five"):
        workers.run(fail, [(k,) for k in range(10_000)])
    assert len(done) < 20
    workers.run(done.append, [(-1,)])
    assert done[-1] == -1


def test_callers_on_many_threads_share_the_helpers():
    totals = [0] * 8

    def call(caller):
        for _ in range(50):
            found = []
            workers.run(found.append, [(k,) for k in range(20)])
            totals[caller] += sum(found)

    threads = [threading.Thread(target=call, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == [50 * 190] * 8
