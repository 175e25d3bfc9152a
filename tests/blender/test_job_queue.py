"""The queue on the disk, and what a job's folder tells."""

import shutil
import subprocess
import sys
import threading

import pytest
from headstudio.job import Job as EngineJob
from headstudio.job import JobRequest as EngineRequest
from headstudio.job import Serving


@pytest.fixture
def module(addon):
    return addon.job_queue


@pytest.fixture
def queue(module, tmp_path):
    return module.JobQueue(tmp_path / "jobs")


@pytest.fixture
def request_for(addon):
    return lambda prompt: addon.job_queue.JobRequest(prompt)


def names(queue):
    return [folder.name for folder in queue.waiting()]


def test_jobs_wait_in_the_order_in_which_they_came(queue, request_for):
    assert names(queue) == []  # there is not even a folder
    for prompt in ("a", "b", "c", "a"):
        queue.add(request_for(prompt))
    assert names(queue) == ["a-1", "b-1", "c-1", "a-2"]
    queue.take_out(queue.folder / "b-1")
    assert names(queue) == ["a-1", "c-1", "a-2"]
    queue.put_last(queue.folder / "b-1")
    queue.put_last(queue.folder / "a-1")
    assert names(queue) == ["c-1", "a-2", "b-1", "a-1"]


@pytest.mark.parametrize(
    ("name", "by", "expected"),
    [("c", -1, "acb"), ("a", 1, "bac"), ("a", -1, "abc"), ("c", 5, "abc"), ("a", 9, "bca")],
)
def test_reordering(queue, request_for, name, by, expected):
    for prompt in "abc":
        queue.add(request_for(prompt))
    queue.move(queue.folder / f"{name}-1", by)
    assert names(queue) == [f"{letter}-1" for letter in expected]
    queue.add(request_for("d"))
    assert names(queue)[-1] == "d-1"


@pytest.mark.parametrize("damage", ["", "first", "nan", "inf", "\x00\x00"])
def test_a_damaged_place_stands_last_and_can_be_moved(queue, request_for, damage):
    for prompt in "abc":
        queue.add(request_for(prompt))
    (queue.folder / "a-1" / "place").write_text(damage)
    assert names(queue) == ["b-1", "c-1", "a-1"]
    queue.add(request_for("d"))
    queue.move(queue.folder / "a-1", -9)
    assert names(queue)[0] == "a-1"


def test_pause_puts_the_job_at_work_first(queue, request_for):
    jobs = [queue.add(request_for(prompt)) for prompt in "ab"]
    queue.take_out(jobs[1].folder)  # it is being served
    queue.pause(jobs[1].folder)
    assert queue.paused
    assert jobs[1].cancel_requested()
    assert names(queue) == ["b-1", "a-1"]
    queue.go_on()
    assert not queue.paused


def test_remove_keeps_the_files_unless_told_otherwise(queue, request_for, addon):
    kept, gone = (queue.add(request_for(prompt)).folder for prompt in "ab")
    with Serving(EngineJob.open(kept)), pytest.raises(addon.job_queue.UserError, match="is being worked on"):
        queue.remove(kept, files=True)
    queue.remove(kept, files=False)
    queue.remove(gone, files=True)
    assert (queue.folders(), names(queue)) == ([], [])
    assert (kept / "job.json").exists()
    assert not gone.exists()
    with pytest.raises(addon.job_queue.UserError, match="is no job of"):
        queue.remove(queue.folder.parent, files=True)
    watch = addon.job_watch.JobWatch(queue.folder)
    watch.look()
    assert [item.name for item in queue.folder.iterdir()] == ["a-1"]


def test_a_deleted_job_cannot_be_put_into_the_queue(queue, request_for, addon):
    job = queue.add(request_for("a"))
    shutil.rmtree(job.folder)
    with pytest.raises(addon.job_queue.UserError, match="has been deleted"):
        queue.put_last(job.folder)
    assert not job.folder.exists()


def test_nothing_is_read_while_the_main_thread_writes(queue, request_for, addon):
    queue.add(request_for("a"))
    watch = addon.job_watch.JobWatch(queue.folder)
    look = threading.Thread(target=watch.look, daemon=True)
    with watch.held():
        with watch.held():  # as an operator that calls another
            look.start()
        look.join(0.3)
        assert look.is_alive()
        assert watch.entries == ()
    look.join(30)
    assert [entry.folder.name for entry in watch.entries] == ["a-1"]


def test_one_process_owns_a_folder_until_it_dies(module, tmp_path):
    ours = module.Ownership(tmp_path)
    code = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    other = [sys.executable, "-c", code, tmp_path / "owner"]
    assert ours.take()
    assert ours.take()
    assert subprocess.run(other, capture_output=True).returncode == 1
    assert not module.Ownership(tmp_path).take()
    ours.release()
    assert subprocess.run(other, capture_output=True).returncode == 0
    assert module.Ownership(tmp_path).take()


def test_entries_of_every_state(addon, tmp_path):
    job = EngineJob.create(tmp_path / "job", EngineRequest("an old man", steps=40))
    reader = addon.job_reader.JobReader(job.folder)
    assert reader.read().state == "queued"
    (job.folder / "place").write_text("3")
    assert (reader.read().state, reader.read().place) == ("waiting", 3.0)
    (job.folder / "place").unlink()

    reader.launch()
    assert reader.read(alive=True).state == "starting"
    with Serving(job) as serving:
        serving.event("started", pid=1, resumed=False)
        serving.event("warning", 0, message="It does not know zorb.")
        serving.event("progress", 10, total=40, remaining=75.4)
        entry = reader.read(alive=True)
        assert (entry.state, entry.step, entry.total, entry.share) == ("running", 10, 40, 0.25)
        assert entry.text == "Step 10 of 40, 1:15 left"
        assert (entry.message, entry.failed) == ("It does not know zorb.", False)
        job.request_cancel()
        assert reader.read(alive=True).state == "stopping"
        job.withdraw_cancel()
        serving.event("preview", 20, avatar="preview/snapshot.avatar.npz")
        assert reader.read(alive=True).snapshot == reader.read_to > 0
    entry = reader.read()  # the worker is gone without a word
    assert (entry.state, entry.failed, entry.step) == ("interrupted", True, 20)

    for kind, state, failed in (("cancelled", "cancelled", False), ("error", "failed", True)):
        with Serving(job) as serving:
            serving.event("started", pid=1, resumed=True)
            assert reader.read().step >= 20  # where it goes on from, as far as one knows
            serving.event(kind, 30, message="The disk is full.")
        entry = reader.read()
        assert (entry.state, entry.failed, entry.step) == (state, failed, 30)
    assert entry.message == "The disk is full."

    job.avatar_path.touch()
    with Serving(job) as serving:
        serving.event("done", 40, avatar=job.avatar_path.name)
    assert (reader.read().state, reader.read().message) == ("done", "")
    assert addon.job_reader.JobReader(job.folder).read().state == "done"  # seen for the first time
    job.avatar_path.unlink()
    assert reader.read().state == "interrupted"
    shutil.rmtree(job.folder)
    assert reader.read().state == "deleted"


def test_folders_that_are_no_jobs_do_no_harm(addon, tmp_path):
    good = EngineJob.create(tmp_path / "jobs" / "good", EngineRequest("an old man"))
    (tmp_path / "jobs" / "holiday").mkdir()
    (tmp_path / "jobs" / "notes.txt").write_text("milk")
    (tmp_path / "jobs" / "newer").mkdir()
    (tmp_path / "jobs" / "newer" / "job.json").write_text('{"format": "headstudio job", "version": 99}')
    with Serving(good) as serving:
        serving.event("progress", 1)
    with open(good.folder / "events.jsonl", "ab") as file:
        file.write(b"\xff\xfe{}\n[]\n" + b'{"kind": "progress", "time": 1, "step": 2, "remaining": "soon"}\n{"kind')
    watch = addon.job_watch.JobWatch(tmp_path / "jobs")
    watch.look()
    states = {entry.folder.name: (entry.state, entry.step) for entry in watch.entries}
    assert states == {"good": ("interrupted", 2), "newer": ("broken", 0)}
    assert "another version" in watch.entry(tmp_path / "jobs" / "newer").message
