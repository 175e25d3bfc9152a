"""Real processes that are interrupted, killed and resumed: they end with the avatar of an undisturbed run."""

from __future__ import annotations

import os
import signal
from shlex import quote

import pytest
from headstudio.job import Job
from headstudio.worker import serve
from support.jobs import SMALL, headstudio, run_headstudio, small_request, wait_for_event, wait_for_step

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="POSIX signals")]
STEPS = 30


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_prior):
    """The avatar's bytes where nothing goes wrong."""
    job = Job.create(tmp_path_factory.mktemp("undisturbed") / "job", small_request(tiny_prior, STEPS))
    assert serve(job) == 0
    return job.avatar_path.read_bytes()


def test_generate_is_killed_then_interrupted_then_ends_as_if_nothing_had_happened(tmp_path, tiny_prior, undisturbed):
    folder = tmp_path / "old man"
    options = ["--prior", tiny_prior, "--steps", STEPS, "--out", folder]
    options += [item for name, value in SMALL.items() for item in ("--setting", f"{name}={value}")]
    process = headstudio("generate", "an old man", *options)
    while not (folder / "job.json").exists() and process.poll() is None:
        pass
    job = Job.open(folder)
    wait_for_step(job, 6, process)
    assert job.state() == "running"
    process.kill()
    process.communicate()
    assert job.state() == "interrupted"
    assert not job.avatar_path.exists()
    killed = job.events()[-1]

    process = headstudio("generate", "--resume", "--out", "old man", cwd=tmp_path)
    wait_for_event(job, lambda event: event.kind == "progress" and event.end > killed.end and event.step >= 9, process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Go on with: headstudio generate --resume --out {quote(str(folder))}" in out
    assert (job.state(), job.avatar_path.exists()) == ("cancelled", False)

    code, out, err = run_headstudio("generate", "an old man", *options, "--resume")
    assert (code, out) == (0, f"{job.avatar_path}\n")
    assert f"step {STEPS} of {STEPS}" in err
    assert job.avatar_path.read_bytes() == undisturbed
    assert run_headstudio("generate", "--resume", "--out", folder) == (
        0,
        f"{job.avatar_path} is finished already.\n",
        "",
    )


def test_two_workers_on_one_folder_then_cancel_by_file_and_by_signal(tmp_path, tiny_prior, undisturbed):
    job = Job.create(tmp_path / "job", small_request(tiny_prior, STEPS))
    first = headstudio("worker", job.folder)
    wait_for_event(job, lambda event: event.kind == "started", first)
    for command in (["worker", job.folder], ["generate", "--resume", "--out", job.folder]):
        code, out, err = run_headstudio(*command)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert f"process {first.pid}" in err
    wait_for_step(job, 5, first)
    assert job.worker()["pid"] == first.pid
    job.request_cancel()
    assert first.communicate(timeout=60) == ("", "")
    assert first.returncode == 130
    assert [event.kind for event in job.events() if event.kind in ("started", "cancelled")] == ["started", "cancelled"]

    second = headstudio("worker", job.folder)
    cancelled = job.events()[-1]
    wait_for_event(job, lambda event: event.kind == "progress" and event.end > cancelled.end, second)
    second.send_signal(signal.SIGTERM)
    assert second.communicate(timeout=60) == ("", "")
    assert second.returncode == 130
    last = job.events()[-1]
    assert (last.kind, job.cancel_requested()) == ("cancelled", False)
    # The step that was being made is finished and kept, whatever the interval of checkpoints
    newest = max(path.name for path in job.checkpoint_folder.iterdir())
    assert int(newest.removeprefix("step-")) >= last.step > cancelled.step
    assert serve(job) == 0
    assert job.avatar_path.read_bytes() == undisturbed
