"""Generate, from the operator through a real worker process to the rig in the scene."""

import shutil
import sys
import time
from pathlib import Path

import pytest

ENGINE = Path(sys.executable).with_name("headstudio")


@pytest.fixture(scope="module")
def tiny_prior(tmp_path_factory):
    from support.tiny_prior import write_tiny_prior

    return write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")


@pytest.fixture
def asked(bpy, scene, addon, tiny_prior, tmp_path):
    preferences = bpy.context.preferences.addons["bl_ext.user_default.headstudio"].preferences
    preferences.engine, preferences.jobs = str(ENGINE), str(tmp_path / "jobs")
    scene.headstudio.prompt = "a clown with green hair"
    scene.headstudio.prior = str(tiny_prior)
    scene.headstudio.steps = 2
    yield scene.headstudio
    following = addon.jobs.current()
    if following is not None:
        following.process.kill()
        following.process.wait()
    addon.jobs.unregister()
    preferences.engine = preferences.jobs = ""


def tick_until(addon, over, seconds=120):
    """What Blender's timer does; without a window there is no event loop."""
    end = time.monotonic() + seconds
    while not over(addon.jobs.current()):
        assert time.monotonic() < end, addon.jobs.current()
        addon.jobs._tick()
        time.sleep(0.05)
    return addon.jobs.current()


@pytest.mark.slow
def test_generate_ends_with_a_rig(bpy, scene, addon, asked):
    assert bpy.ops.headstudio.generate() == {"FINISHED"}
    following = tick_until(addon, lambda f: f.failed or (f.state == "done" and not f.preview))
    assert not following.failed, following.message
    assert (following.step, following.total) == (2, 2)
    mesh = bpy.data.objects["a-clown-with-green-hair"]
    assert len(mesh.data.headstudio.splats.vertices) > 1000
    assert mesh.data.shape_keys.key_blocks["jawOpen"].value == 0
    assert len([c for c in bpy.data.collections if c.objects]) == 1  # snapshots were replaced


@pytest.mark.slow
def test_cancel_then_resume(bpy, scene, addon, asked):
    asked.steps = 400
    bpy.ops.headstudio.generate()
    tick_until(addon, lambda f: f.step > 0)
    bpy.ops.headstudio.cancel()
    following = tick_until(addon, lambda f: f.state == "cancelled")
    assert not following.failed
    assert "resumed" in following.message
    stopped = following.step
    bpy.ops.headstudio.resume()
    following = tick_until(addon, lambda f: f.step > stopped)
    assert following.step > stopped


def test_a_worker_that_fails_is_one_message(bpy, scene, addon, asked):
    asked.prior = "no-such-prior"
    bpy.ops.headstudio.generate()
    following = tick_until(addon, lambda f: f.failed)
    assert "no-such-prior" in following.message


def test_a_job_folder_that_vanishes_is_one_message(bpy, scene, addon, asked):
    bpy.ops.headstudio.generate()
    shutil.rmtree(addon.jobs.current().job.folder)
    following = tick_until(addon, lambda f: f.failed)
    assert "deleted" in following.message


def test_a_missing_engine_is_one_message(bpy, scene, addon, asked):
    preferences = bpy.context.preferences.addons["bl_ext.user_default.headstudio"].preferences
    preferences.engine = "/no/such/headstudio"
    with pytest.raises(RuntimeError, match="no such program"):
        bpy.ops.headstudio.generate()
    assert addon.jobs.current() is None
