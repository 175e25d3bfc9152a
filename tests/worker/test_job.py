"""The job folder: requests, events and the lock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from headstudio.errors import UserError
from headstudio.job import MAX_PROMPT, Job, JobRequest, Serving, name_from
from headstudio.train.settings import PRESETS
from hypothesis import given
from hypothesis import strategies as st

HOLD = """
import sys, time
from headstudio.job import Job, Serving
with Serving(Job.open(sys.argv[1])) as serving:
    serving.event("started", pid=1, resumed=False)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def job(tmp_path):
    return Job.create(tmp_path / "job", JobRequest("an old man", seed=7, steps=3))


@pytest.fixture
def holder(job):
    """Another process that serves the job."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, job.folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_imports_without_numpy_and_torch():
    code = (
        "import sys\n"
        "for name in ('numpy', 'torch'): sys.modules[name] = None\n"
        "import headstudio.job, headstudio.train.settings"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_request_survives_the_folder(job):
    assert Job.open(job.folder).request == job.request
    assert job.avatar_path.name == "an-old-man.avatar.npz"
    assert job.state() == "queued"
    assert job.events() == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n\t "}, "prompt is empty"),
        ({"prompt": "a" * 10_000}, "10000 characters"),
        ({"negative": "a" * (MAX_PROMPT + 1)}, "negative prompt has"),
        ({"prompt": "an old \x00 man"}, "cannot be printed"),
        ({"prompt": "an old \udcff man"}, "cannot be printed"),
        ({"prompt": 3}, "must be text"),
        ({"preset": "fast"}, "no preset called 'fast'"),
        ({"steps": 0}, "number of steps is 0"),
        ({"steps": -5}, "number of steps is -5"),
        ({"steps": True}, "number of steps is True"),
        ({"steps": 1.5}, "number of steps is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is"),
        ({"prior": " "}, "prior is empty"),
        ({"head": ""}, "head is empty"),
        ({"name": "../evil"}, "is no file name"),
        ({"name": ".hidden"}, "is no file name"),
        ({"name": "con"}, "is no file name"),
        ({"name": "dot."}, "is no file name"),
        ({"settings": {"vews": 2}}, "no setting called 'vews'"),
        ({"settings": {"views": 0}}, "views is 0"),
        ({"settings": {"views": "two"}}, "views is 'two'"),
        ({"settings": {"render_size": -64}}, "render_size is -64"),
        ({"settings": {"timesteps": [1, 2, 3]}}, "cannot be used"),
        ({"settings": [1]}, "must be names with values"),
    ],
)
def test_request_that_cannot_be_served(wrong, message):
    with pytest.raises(UserError, match=message):
        JobRequest(**{"prompt": "an old man"} | wrong)


def test_settings_are_the_presets_with_the_requests_changes():
    request = JobRequest("a head", preset="draft", steps=7, settings={"views": 2, "lr_colour": 1, "timesteps": [1, 9]})
    settings, preset = request.train_settings(), PRESETS["draft"][1]
    assert (settings.steps, settings.views, settings.lr_colour, settings.timesteps) == (7, 2, 1, (1, 9))
    assert settings.cameras == preset.cameras
    assert settings.lr_offset == preset.lr_offset


@given(st.text(max_size=200))
def test_any_prompt_gives_a_name_that_is_a_file_name(prompt):
    name = name_from(prompt)
    assert JobRequest("x", name=name).name == name


@given(
    prompt=st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=60),
    seed=st.integers(0, 2**63 - 1),
    steps=st.none() | st.integers(1, 10**7),
)
def test_request_to_json_and_back(prompt, seed, steps):
    request = JobRequest(prompt, seed=seed, steps=steps)
    assert JobRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_create_refuses_a_folder_in_use(job, tmp_path):
    with pytest.raises(UserError, match=r"job in .* already"):
        Job.create(job.folder, job.request)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").touch()
    with pytest.raises(UserError, match="not empty"):
        Job.create(tmp_path / "full", job.request)
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="Cannot write"):
            Job.create(folder, job.request)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"format": "headstudio job"}', '{"format": "headstudio job", "version": 99}', "\xff",
     '{"format": "headstudio job", "version": 1, "request": {"prompt": "x", "surprise": 1}}',
     '{"format": "headstudio job", "version": 1, "request": {"prompt": ""}}',
     '{"format": "headstudio job", "version": 1, "request": 5}', "[" * 100_000],
)  # fmt: skip
def test_open_refuses_what_is_no_job(job, text):
    (job.folder / "job.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError):
        Job.open(job.folder)


def test_open_refuses_missing_folders(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        with pytest.raises(UserError, match="no job in"):
            Job.open(folder)


def test_events_are_read_once_each(job):
    with Serving(job) as serving:
        serving.event("started", pid=1, resumed=False)
        first = job.events()
        serving.event("progress", 1, total=3, losses={"distil": 0.5})
        later = job.events(first[-1].end)
    assert [e.kind for e in first] == ["started"]
    assert [(e.kind, e.step, e.data) for e in later] == [("progress", 1, {"total": 3, "losses": {"distil": 0.5}})]
    assert abs(later[0].time - time.time()) < 60
    assert job.events(later[-1].end) == []


def test_a_line_counts_only_when_it_is_whole(job):
    line = b'{"kind": "progress", "time": 1.0, "step": 4}\n'
    for length in range(len(line)):
        (job.folder / "events.jsonl").write_bytes(line + line[:length])
        events = job.events()
        assert len(events) == 1
        assert events[0].end == len(line)


def test_a_line_that_a_crash_cut_off_is_passed_over(job):
    with Serving(job) as serving:
        serving.event("started")
    with open(job.folder / "events.jsonl", "ab") as file:
        file.write(b'{"kind": "progr')
    with Serving(job) as serving:
        serving.event("done", 3)
    assert [e.kind for e in job.events()] == ["started", "done"]


@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=8))
def test_damaged_lines_never_raise(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("damaged")
    job = Job.create(folder / "job", JobRequest("x"))
    good = b'{"kind": "done", "time": 1.0, "step": 4}'
    (job.folder / "events.jsonl").write_bytes(b"\n".join([*lines, good, b""]))
    assert job.events()[-1].kind == "done"
    assert job.state() == "done"


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        (["started"], "interrupted"),
        (["started", "progress", "preview", "warning"], "interrupted"),
        (["started", "progress", "cancelled"], "cancelled"),
        (["started", "error"], "failed"),
        (["started", "error", "started"], "interrupted"),
        (["started", "cancelled", "started", "done"], "done"),
    ],
)
def test_state_after_events(job, kinds, state):
    with Serving(job) as serving:
        for kind in kinds:
            serving.event(kind)
        assert job.state() == "running"
    assert job.state() == state


def test_state_of_a_long_job_is_found_at_its_end(job):
    with Serving(job) as serving:
        for step in range(1500):
            serving.event("progress", step, total=1500, losses={"distil": 0.1})
        serving.event("done", 1500)
    assert (job.folder / "events.jsonl").stat().st_size > 1 << 16
    assert job.state() == "done"


def test_two_processes_cannot_serve_one_folder(job, holder):
    assert job.state() == "running"
    assert job.worker()["pid"] == holder.pid
    assert abs(job.worker()["started"] - time.time()) < 60
    with pytest.raises(UserError, match=rf"worked on already \(process {holder.pid}\)"), Serving(job):
        pass
    assert [e.kind for e in job.events()] == ["started"]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_the_lock_dies_with_its_process(job, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (job.folder / "lock").read_text().startswith('{"pid":')
    assert job.worker() is None
    assert job.state() == "interrupted"
    with Serving(job):
        assert job.worker()["pid"] == os.getpid()


def test_readers_do_not_keep_a_worker_out(job):
    over = threading.Event()

    def ask():
        while not over.is_set():
            job.state()

    readers = [threading.Thread(target=ask) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(20):
            with Serving(job) as serving:
                serving.event("started")
    finally:
        over.set()
        for reader in readers:
            reader.join()


def test_follow_ends_with_the_job(job):
    def serve():
        time.sleep(0.1)
        with Serving(job) as serving:
            for kind in ("started", "progress", "done"):
                time.sleep(0.05)
                serving.event(kind)

    worker = threading.Thread(target=serve)
    worker.start()
    assert [e.kind for e in job.follow(poll=0.02)] == ["started", "progress", "done"]
    worker.join()


def test_follow_ends_when_the_worker_is_killed(job, holder):
    events = job.follow(poll=0.02)
    assert next(events).kind == "started"
    holder.kill()
    holder.wait()
    assert list(events) == []


def test_follow_ends_when_the_folder_goes(job, holder):
    events = job.follow(poll=0.02)
    next(events)
    for path in job.folder.iterdir():
        path.unlink()
    job.folder.rmdir()
    assert list(events) == []


def test_writing_to_a_deleted_folder_is_an_error(job):
    with Serving(job) as serving:
        (job.folder / "job.json").unlink()
        with pytest.raises(UserError, match="has been deleted"):
            serving.event("progress")


def test_a_line_of_which_a_part_was_written_spoils_no_other(job, monkeypatch):
    write = os.write
    with Serving(job) as serving:
        serving.event("started")
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:20]))
        with pytest.raises(UserError, match="No space left"):
            serving.event("progress")
        monkeypatch.undo()
        serving.event("error", message="the disk is full")
    assert [event.kind for event in job.events()] == ["started", "error"]


def test_cancel_is_a_file(job):
    assert not job.cancel_requested()
    job.request_cancel()
    job.request_cancel()
    assert (job.folder / "cancel").exists()
    assert job.cancel_requested()
    job.withdraw_cancel()
    job.withdraw_cancel()
    assert not job.cancel_requested()
