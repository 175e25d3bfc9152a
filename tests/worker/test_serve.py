"""Serving a job in this process: what it writes, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import threading

import cv2
import numpy as np
import pytest
from headstudio import worker
from headstudio.avatar.file import load_avatar
from headstudio.errors import UserError
from headstudio.job import Job, Serving
from headstudio.train.progress import SilentReporter
from headstudio.worker import serve
from support.jobs import small_request


@pytest.fixture
def job(tmp_path, tiny_prior):
    return Job.create(tmp_path / "job", small_request(tiny_prior, 7))


class At(SilentReporter):
    """Does something after a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def progress(self, progress):
        if progress.step == self.step:
            self.action()


def kinds(job):
    return [event.kind for event in job.events() if event.kind != "progress"]


def interrupt():
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_prior):
    """The avatar's bytes where nothing goes wrong."""
    job = Job.create(tmp_path_factory.mktemp("undisturbed") / "job", small_request(tiny_prior, 7))
    assert serve(job) == 0
    return job.avatar_path.read_bytes()


def test_a_job_from_request_to_avatar(job, undisturbed, capsys):
    assert serve(job) == 0
    assert kinds(job) == ["started", "preview", "preview", "done"]
    assert job.state() == "done"
    assert job.finished
    last = job.events()[-1]
    avatar = load_avatar(job.folder / last.data["avatar"])
    assert (last.step, avatar.provenance["step"], avatar.provenance["prompt"]) == (7, 7, "an old man")
    assert job.avatar_path.read_bytes() == undisturbed
    previews = [event for event in job.events() if event.kind == "preview"]
    assert [event.step for event in previews] == [6, 7]
    for name in ("front", "side"):
        picture = cv2.imread(str(job.folder / previews[-1].data[name]))
        assert picture.shape == (256, 256, 3)
        assert picture.std() > 5
    snapshot = load_avatar(job.folder / previews[-1].data["avatar"])
    assert np.array_equal(snapshot.splats.offset, avatar.splats.offset)
    assert not list(job.folder.rglob("*.part"))
    assert "done at step 7" in job.log_path.read_text()
    assert capsys.readouterr() == ("", "")


def test_progress_tells_step_losses_and_time(job, monkeypatch):
    monkeypatch.setattr(worker, "PROGRESS_EVERY", 0.0)
    assert serve(job) == 0
    progress = [event for event in job.events() if event.kind == "progress"]
    assert [event.step for event in progress] == [1, 2, 3, 4, 5, 6, 7]
    assert all(event.data["total"] == 7 and event.data["losses"]["repaint"] > 0 for event in progress)
    assert progress[-1].data["remaining"] == 0 < progress[0].data["remaining"]
    seconds = [event.data["seconds"] for event in progress]
    assert seconds == sorted(seconds)
    wall = progress[-1].time - progress[0].time
    assert seconds[-1] - seconds[0] == pytest.approx(wall, abs=0.2)


def test_events_are_throttled(job, monkeypatch):
    monkeypatch.setattr(worker, "PROGRESS_EVERY", 1000.0)
    assert serve(job) == 0
    assert [event.step for event in job.events() if event.kind == "progress"] == [1, 7]


def test_a_finished_job_is_left_alone(job):
    assert serve(job) == 0
    before = job.events()
    assert serve(job) == 0
    assert job.events() == before


def test_a_lost_avatar_is_made_again(job, undisturbed):
    assert serve(job) == 0
    job.avatar_path.unlink()
    assert serve(job) == 0
    assert job.avatar_path.read_bytes() == undisturbed


@pytest.mark.parametrize("step", [1, 4, 5])
def test_cancel_by_file_and_resume(job, undisturbed, step):
    assert serve(job, At(step, job.request_cancel)) == 130
    assert kinds(job)[-1] == "cancelled"
    assert job.events()[-1].step >= 1
    assert (job.state(), job.cancel_requested(), job.avatar_path.exists()) == ("cancelled", False, False)
    assert serve(job) == 0
    assert [event.data["resumed"] for event in job.events() if event.kind == "started"] == [False, True]
    assert job.avatar_path.read_bytes() == undisturbed


def test_cancel_before_the_start(job, monkeypatch):
    monkeypatch.setattr(worker, "load_inputs", lambda request: pytest.fail("nothing is to be loaded"))
    job.request_cancel()
    assert serve(job) == 130
    assert kinds(job) == ["started", "cancelled"]
    assert not job.cancel_requested()


def test_break_off_in_the_middle_of_a_step(job, undisturbed):
    """A second Ctrl-C: no checkpoint of that step, but the one before it is there."""
    assert serve(job, At(6, interrupt)) == 130
    assert job.state() == "cancelled"
    assert serve(job) == 0
    assert job.avatar_path.read_bytes() == undisturbed


def test_words_that_the_prior_does_not_know(tmp_path, tiny_prior):
    job = Job.create(tmp_path / "job", small_request(tiny_prior, 1, prompt="an old zorb " + "man " * 40))
    heard = []

    class Ear(SilentReporter):
        def warning(self, message):
            heard.append(message)

    assert serve(job, Ear()) == 0
    warnings = [event.data["message"] for event in job.events() if event.kind == "warning"]
    assert warnings == heard
    assert any(message.endswith("will not follow them: zorb.") for message in warnings)
    assert any("its end has no effect" in message for message in warnings)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prior": "/nothing/here"}, "There is no prior '/nothing/here'"),
        ({"head": "/nothing/here.pkl"}, "There is no head at"),
        ({"device": "gpu"}, "The device 'gpu' cannot be used"),
        ({"device": "cuda:99"}, "The device 'cuda:99' cannot be used"),
    ],
)
def test_errors_that_the_user_can_put_right(tmp_path, tiny_prior, wrong, message, capsys):
    job = Job.create(tmp_path / "job", small_request(**{"prior": tiny_prior, "steps": 1} | wrong))
    assert serve(job) == 2
    last = job.events()[-1]
    assert last.kind == "error"
    assert message in last.data["message"]
    assert job.state() == "failed"
    assert capsys.readouterr().err == f"headstudio: {last.data['message']}\n"
    assert not job.avatar_path.exists()


def test_the_system_refuses(job, capsys):
    def fail():
        raise PermissionError(13, "Permission denied", "/some/cache")

    assert serve(job, At(5, fail)) == 2
    assert "Permission denied: '/some/cache'" in capsys.readouterr().err
    assert job.state() == "failed"


@pytest.mark.skipif(os.name == "nt", reason="needs limits on files")
def test_a_log_that_is_full_disturbs_nobody(job, undisturbed, capsys):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    job.log_path.write_text("x" * 2_000_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        assert serve(job) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capsys.readouterr() == ("", "")
    assert job.avatar_path.read_bytes() == undisturbed


def test_a_fault_of_ours_is_told_as_one(job, capsys):
    def fail():
        raise ZeroDivisionError("by zero")

    assert serve(job, At(5, fail)) == 1
    message = job.events()[-1].data["message"]
    assert "ZeroDivisionError: by zero" in message
    assert "Traceback" not in message + capsys.readouterr().err
    assert "Traceback" in job.log_path.read_text()
    assert serve(job) == 0


def test_a_checkpoint_of_another_request_is_refused(job):
    assert serve(job, At(5, job.request_cancel)) == 130
    about = json.loads((job.folder / "job.json").read_text())
    about["request"]["seed"] = 99
    (job.folder / "job.json").write_text(json.dumps(about))
    assert serve(Job.open(job.folder)) == 2
    assert "differs in seed" in job.events()[-1].data["message"]


def test_not_while_another_one_serves(job):
    with Serving(job), pytest.raises(UserError, match="worked on already"):
        serve(job)
    assert job.events() == []


def test_the_folder_is_deleted_meanwhile(job, capsys):
    assert serve(job, At(3, lambda: shutil.rmtree(job.folder))) == 2
    assert "has been deleted" in capsys.readouterr().err
    assert not job.folder.exists()


@pytest.mark.skipif(os.name == "nt", reason="needs limits on files")
@pytest.mark.parametrize("kilobytes", [1, 60, 250])
def test_the_disk_is_full(job, undisturbed, capsys, kilobytes):
    """Files may not grow beyond a limit, which the log, a checkpoint, a preview or the avatar meets first."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1000, before[1]))
    try:
        assert serve(job) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capsys.readouterr().err
    assert "File too large" in error
    assert len(error.splitlines()) == 1
    # With the smallest limit the event of the error may not fit either
    assert job.state() == "failed" or (kilobytes == 1 and job.state() == "interrupted")
    assert not list(job.folder.rglob("*.part"))
    assert serve(job) == 0
    assert [event.kind for event in job.events()][-1] == "done"
    assert job.avatar_path.read_bytes() == undisturbed


def test_what_a_killed_worker_left_is_removed(job):
    (job.folder / "preview").mkdir()
    for leftover in (job.folder / ".x.avatar.npz.ab12.part", job.preview_folder / ".front.png.cd34.part"):
        leftover.write_bytes(b"half")
    assert serve(job) == 0
    assert not list(job.folder.rglob("*.part"))


def test_in_another_thread_than_the_main_one(job, undisturbed):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(serve(job)))
    thread.start()
    thread.join()
    assert codes == [0]
    assert job.avatar_path.read_bytes() == undisturbed


def test_a_follower_sees_it_all(job):
    seen = []
    follower = threading.Thread(target=lambda: seen.extend(job.follow(poll=0.01)))
    follower.start()
    assert serve(job) == 0
    follower.join(60)
    assert seen == job.events()
    assert seen[-1].kind == "done"
