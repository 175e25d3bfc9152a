"""Jobs from the operators through real worker processes to the rig in the scene."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import this_blender

MODULE = "bl_ext.user_default.headstudio"
ENGINE = this_blender.engine()
PROMPT = "a clown with green hair"


@pytest.fixture(scope="module")
def tiny_prior(tmp_path_factory):
    """Written by the Python that has the engine, because Blender's may lack torch."""
    if not Path(ENGINE).is_file():
        pytest.skip(f"there is no engine to start: {ENGINE} is no file")
    folder = tmp_path_factory.mktemp("prior") / "tiny"
    code = "import sys; sys.path.insert(0, sys.argv[1]); from support.tiny_prior import write_tiny_prior as write; "
    command = [this_blender.engine_python(), "-c", code + "write(sys.argv[2])", this_blender.ROOT / "tests", folder]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def preferences(bpy, addon, tmp_path):
    preferences = bpy.context.preferences.addons[MODULE].preferences
    preferences.engine, preferences.jobs = ENGINE, str(tmp_path / "jobs")
    yield preferences
    for process in addon.jobs._state.watch._processes.values() if addon.jobs._state.watch else ():
        process.kill()
        process.wait()
    addon.jobs._stop()
    preferences.engine = preferences.jobs = ""


@pytest.fixture
def asked(scene, preferences, tiny_prior):
    scene.headstudio.prompt = PROMPT
    scene.headstudio.prior = str(tiny_prior)
    scene.headstudio.steps = 2
    return scene.headstudio


@pytest.fixture(scope="module")
def finished(tiny_prior, tmp_path_factory):
    """The folder of a job that a worker has finished while no Blender was there."""
    from headstudio.job import Job, JobRequest

    job = Job.create(tmp_path_factory.mktemp("jobs") / "clown", JobRequest(PROMPT, steps=2, prior=str(tiny_prior)))
    subprocess.run([ENGINE, "worker", job.folder], check=True)
    return job.folder


@pytest.fixture
def script(tmp_path, preferences):
    """Puts a shell script in the engine's place."""

    def write(text):
        path = tmp_path / "engine"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        preferences.engine = str(path)

    return write


def entries(bpy, addon):
    """What Blender's timer does; without a window there is no event loop."""
    addon.jobs.step(bpy.context)
    return addon.jobs.entries()


def until(bpy, addon, over, seconds=300):
    """Let the timer run until ``over(entries)``."""
    end = time.monotonic() + seconds
    while not over(found := entries(bpy, addon)):
        assert time.monotonic() < end, (found, addon.jobs.notice())
        time.sleep(0.02)
    return found


def previews(bpy):
    return [item for item in bpy.data.objects if "headstudio_job" in item]


def worker_of(folder):
    return json.loads((folder / "lock").read_text())["pid"]


@pytest.mark.slow
def test_a_queue_with_pause_cancel_and_a_rig_at_its_end(bpy, scene, addon, asked):
    asked.steps = 400
    assert bpy.ops.headstudio.generate() == {"FINISHED"}
    asked.prompt, asked.steps = "an orc", 2
    assert bpy.ops.headstudio.generate() == {"FINISHED"}
    clown, orc = until(bpy, addon, lambda e: len(e) == 2 and e[0].step > 0)
    assert (clown.folder.name, clown.state, clown.total) == ("a-clown-with-green-hair-1", "running", 400)
    assert (orc.prompt, orc.state) == ("an orc", "waiting")
    assert os.getsid(worker_of(clown.folder)) == worker_of(clown.folder) != os.getsid(0)  # it outlives this process
    assert [row.name for row in bpy.context.window_manager.headstudio.jobs] == [clown.folder.name, orc.folder.name]

    bpy.ops.headstudio.pause()
    clown, orc = until(bpy, addon, lambda e: [x.state for x in e] == ["waiting", "waiting"])
    assert clown.folder.name.startswith("a-clown")
    stopped = clown.step
    assert stopped > 0
    time.sleep(0.5)
    assert addon.jobs.at_work() is None
    assert addon.jobs.is_stopped()
    bpy.ops.headstudio.start_queue()
    clown, _ = until(bpy, addon, lambda e: e[0].state == "running" and e[0].step > stopped)

    bpy.ops.headstudio.cancel(job=clown.folder.name)
    orc, clown = until(bpy, addon, lambda e: e[0].prompt == "an orc" and e[0].state == "running")
    assert (clown.state, clown.failed) == ("cancelled", False)
    until(bpy, addon, lambda e: any(x.state == "done" for x in e) and "an-orc" in bpy.data.objects)
    rig = bpy.data.objects["an-orc"]
    assert len(rig.data.headstudio.splats.vertices) > 1000
    assert rig.data.shape_keys.key_blocks["jawOpen"].value == 0
    assert not previews(bpy)


@pytest.mark.slow
def test_a_job_is_found_again_and_a_dead_engine_is_told_of(bpy, scene, addon, asked):
    asked.steps = 400
    bpy.ops.headstudio.generate()
    (entry,) = until(bpy, addon, lambda e: e and e[0].step > 0)
    addon.jobs._stop()  # as when Blender is closed
    assert addon.jobs.entries() == ()
    (entry,) = until(bpy, addon, lambda e: e and e[0].state == "running")
    assert entry.total == 400
    assert not addon.jobs.is_shown(entry)
    assert addon.jobs.chosen(bpy.context) == entry
    os.kill(worker_of(entry.folder), signal.SIGKILL)
    (entry,) = until(bpy, addon, lambda e: e[0].state == "interrupted")
    assert entry.failed
    assert "The engine died" in entry.message
    assert any("started at step 0" in line for line in entry.log)
    assert entry.state in addon.job_reader.RESUMABLE


def test_a_snapshot_is_shown_and_then_replaced_by_the_rig(bpy, scene, addon, preferences, finished):
    from headstudio.avatar.file import load_avatar
    from headstudio.job import Job, Serving

    folder = Path(preferences.jobs) / finished.name
    shutil.copytree(finished, folder)
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "events.jsonl").write_bytes(b"".join(lines[:-1]))  # not done yet
    with Serving(Job.open(folder)) as serving:
        until(bpy, addon, lambda e: e and e[0].state == "running")
        bpy.ops.headstudio.show_job(job=folder.name)
        until(bpy, addon, lambda e: previews(bpy))
        (shown,) = previews(bpy)
        first = shown.data.headstudio.splats.session_uid
        avatar = load_avatar(folder / "preview" / "snapshot.avatar.npz")
        assert len(shown.data.headstudio.splats.vertices) == len(avatar.splats)
        corner = shown.data.vertices[7].co
        x, y, z = avatar.head.vertices[7]
        assert tuple(corner) == pytest.approx((x, -z, y), abs=1e-6)
        serving.event("preview", 2, front="", side="", avatar="preview/snapshot.avatar.npz")
        until(bpy, addon, lambda e: previews(bpy)[0].data.headstudio.splats.session_uid != first)
        assert previews(bpy) == [shown]
        assert len(bpy.data.meshes) == 2  # the head and its splats: those before are gone

        bpy.ops.mesh.primitive_cube_add()
        bpy.ops.ed.undo_push(message="Cube")
        bpy.ops.object.mode_set(mode="EDIT")
        serving.event("done", 2, avatar="")
    until(bpy, addon, lambda e: "Object Mode" in addon.jobs.notice())
    assert bpy.context.mode == "EDIT_MESH"
    bpy.ops.object.mode_set(mode="OBJECT")
    until(bpy, addon, lambda e: not previews(bpy))
    assert addon.jobs.notice() == ""
    assert bpy.data.objects["a-clown-with-green-hair"].data.shape_keys is not None
    bpy.ops.ed.undo()
    entries(bpy, addon)
    assert not previews(bpy)
    assert "a-clown-with-green-hair" not in bpy.data.objects


def test_an_avatar_that_cannot_come_in_is_one_lasting_message(bpy, scene, addon, preferences, finished, monkeypatch):
    folder = Path(preferences.jobs) / finished.name
    shutil.copytree(finished, folder)
    until(bpy, addon, lambda e: e)

    def fail(*_):
        raise MemoryError("no memory")

    monkeypatch.setattr(addon.jobs, "add_avatar", fail)
    bpy.ops.headstudio.show_job(job=folder.name)
    (entry,) = until(bpy, addon, lambda e: e[0].failed)
    assert "cannot be brought into the scene: no memory" in entry.message
    time.sleep(1.2)  # a look at everything later
    assert entries(bpy, addon)[0].message == entry.message
    monkeypatch.undo()
    bpy.ops.headstudio.show_job(job=folder.name)
    until(bpy, addon, lambda e: "a-clown-with-green-hair" in bpy.data.objects and not e[0].failed)


def test_another_file_gets_nothing_unasked_and_a_saved_preview_goes_on(
    bpy, scene, addon, preferences, finished, tmp_path
):
    folder = Path(preferences.jobs) / finished.name
    shutil.copytree(finished, folder)
    (folder / "events.jsonl").write_bytes((folder / "events.jsonl").read_bytes().rpartition(b'{"kind": "done"')[0])
    until(bpy, addon, lambda e: e)
    bpy.ops.headstudio.show_job(job=folder.name)
    until(bpy, addon, lambda e: previews(bpy))
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "clown.blend"))
    bpy.ops.wm.read_homefile(use_empty=True)
    (entry,) = entries(bpy, addon)
    assert not addon.jobs.is_shown(entry)
    assert not previews(bpy)
    shutil.copy(finished / "events.jsonl", folder)  # finished meanwhile
    until(bpy, addon, lambda e: e[0].state == "done")
    assert "a-clown-with-green-hair" not in bpy.data.objects
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "clown.blend"))
    until(bpy, addon, lambda e: not previews(bpy))
    assert "a-clown-with-green-hair" in bpy.data.objects


def test_continue_with_another_prompt_starts_from_the_avatar(bpy, scene, addon, asked, finished, script):
    from headstudio.job import Job

    script("exec sleep 60")
    jobs = Path(bpy.context.preferences.addons[MODULE].preferences.jobs)
    shutil.copytree(finished, jobs / finished.name)
    until(bpy, addon, lambda e: e)
    asked.prompt, asked.steps = "", 7
    bpy.ops.headstudio.continue_job(job=finished.name)
    assert (asked.prompt, asked.steps) == (PROMPT, 2)
    asked.prompt = "a sad clown"
    bpy.ops.headstudio.generate()
    found = until(bpy, addon, lambda e: e[0].state == "starting")
    job = Job.open(found[0].folder)
    assert job.request.prompt == "a sad clown"
    assert job.start_path.read_bytes() == (finished / "a-clown-with-green-hair.avatar.npz").read_bytes()
    assert addon.jobs.chosen(bpy.context).folder == job.folder


def test_a_job_that_fails_is_one_message_with_the_log(bpy, scene, addon, asked):
    asked.prior = "no-such-prior"
    bpy.ops.headstudio.generate()
    (entry,) = until(bpy, addon, lambda e: e and e[0].state == "failed")
    assert "no-such-prior" in entry.message
    assert entry.log
    assert not any("no-such-prior" in line for line in entry.log)  # which would be the message again
    assert "no-such-prior" in (entry.folder / "log.txt").read_text()


def test_an_engine_that_dies_before_it_begins_is_one_message_with_the_log(bpy, scene, addon, asked, script):
    script("echo libtorch.so is not there; exit 3")
    bpy.ops.headstudio.generate()
    (entry,) = until(bpy, addon, lambda e: e and e[0].state == "failed")
    assert "ended before it could begin" in entry.message
    assert entry.log == ("libtorch.so is not there",)
    assert addon.jobs.at_work() is None


def test_an_engine_that_cannot_be_started_stops_the_queue(bpy, scene, addon, asked, script):
    script("")
    Path(bpy.context.preferences.addons[MODULE].preferences.engine).write_text("#!/no/such/interpreter\n")
    bpy.ops.headstudio.generate()
    until(bpy, addon, lambda e: e and e[0].state in addon.job_reader.RESUMABLE and addon.jobs.notice())
    assert "cannot be started" in addon.jobs.notice()


def test_a_job_folder_that_vanishes_is_one_message(bpy, scene, addon, asked, script):
    script("exec sleep 60")
    bpy.ops.headstudio.generate()
    (entry,) = until(bpy, addon, lambda e: e and e[0].state == "starting")
    shutil.rmtree(entry.folder)
    (entry,) = until(bpy, addon, lambda e: e[0].state == "deleted")
    assert "has been deleted" in entry.message
    for operator in (bpy.ops.headstudio.open_log, bpy.ops.headstudio.resume, bpy.ops.headstudio.show_job):
        with pytest.raises(RuntimeError, match=r"deleted"):
            operator(job=entry.folder.name)
    bpy.ops.headstudio.remove_job(job=entry.folder.name)
    until(bpy, addon, lambda e: not e)


def test_a_missing_engine_is_one_message_and_makes_no_job(bpy, scene, addon, asked, preferences):
    preferences.engine = "/no/such/headstudio"
    with pytest.raises(RuntimeError, match="no such program"):
        bpy.ops.headstudio.generate()
    assert not Path(preferences.jobs).exists()


@pytest.mark.parametrize("folder", ["/sys/headstudio", "/dev/null/jobs"])
def test_a_disk_that_takes_nothing_is_one_message(bpy, scene, addon, asked, preferences, folder):
    preferences.jobs = folder
    with pytest.raises(RuntimeError, match=rf"Cannot write in the job's folder {folder}.* Choose another folder"):
        bpy.ops.headstudio.generate()
    assert entries(bpy, addon) == ()


def test_only_one_blender_works_through_a_folder(bpy, scene, addon, asked, preferences, script):
    script("exec sleep 60")
    Path(preferences.jobs).mkdir()
    code = (
        "import fcntl, os, sys, time\n"
        "file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('{\"pid\": %d}' % os.getpid(), file=file, flush=True); print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, Path(preferences.jobs) / "owner"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        bpy.ops.headstudio.generate()
        until(bpy, addon, lambda e: e and addon.jobs.notice())
        assert f"process {other.pid}" in addon.jobs.notice()
        time.sleep(0.5)
        assert entries(bpy, addon)[0].state == "waiting"
        other.kill()
    until(bpy, addon, lambda e: e[0].state == "starting")
    assert addon.jobs.notice() == ""
