"""Small jobs that really train, in this process or in another."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from headstudio.job import Event, Job, JobRequest
from support.tiny_prior import write_tiny_prior

# The smallest run that still has snapshots, checkpoints and a densification. Long enough to be caught in the middle.
SMALL = {
    "render_size": 24,
    "views": 2,
    "splats": 400,
    "repaint_scenes": 2,
    "checkpoint_every": 4,
    "snapshot_every": 6,
    "densify_from": 0.1,
    "densify_until": 0.3,
    "densify_every": 0.1,
}


def small_request(prior: Path, steps: int, **changes) -> JobRequest:
    return JobRequest(**{"prompt": "an old man", "prior": str(prior), "steps": steps, "settings": SMALL} | changes)


def headstudio(*arguments: object, **options) -> subprocess.Popen:
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "headstudio.cli", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        **options,
    )


def run_headstudio(*arguments: object, **options) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command line."""
    process = headstudio(*arguments, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for_event(job: Job, wanted: Callable[[Event], bool], process: subprocess.Popen | None = None) -> Event:
    """The first such event; fails when the process ends before, or after two minutes."""
    after, deadline = 0, time.monotonic() + 120
    while time.monotonic() < deadline:
        ended = process is not None and process.poll() is not None
        for event in job.events(after):
            after = event.end
            if wanted(event):
                return event
        assert not ended, process.communicate()
        time.sleep(0.01)
    raise AssertionError("the event did not come")


def wait_for_step(job: Job, step: int, process: subprocess.Popen | None = None) -> Event:
    return wait_for_event(job, lambda event: event.kind == "progress" and event.step >= step, process)


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior of random weights that knows three words."""
    return write_tiny_prior(tmp_path_factory.mktemp("prior"), size=8, vocabulary=["an", "old", "man"])
