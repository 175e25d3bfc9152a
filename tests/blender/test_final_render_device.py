"""The device setting: the engine's CPU back end draws what the GPU draws, and a machine without a GPU says so."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import this_blender
from pictures import psnr
from shots import add_plane, left_half, shoot


@pytest.fixture
def engine(monkeypatch):
    """The engine that the add-on finds."""
    monkeypatch.setenv("HEADSTUDIO_ENGINE", this_blender.engine())


@pytest.mark.parametrize("kind", ["PERSP", "ORTHO"])
def test_cpu_and_gpu_draw_the_same(bpy, scene, addon, rig, camera, engine, tmp_path, kind):
    """A wall cuts through the head from the left, another one passes the camera, and a part is rendered."""
    camera.data.type = kind
    camera.data.clip_start, camera.data.shift_x = 0.52, 0.05
    add_plane(bpy, scene, left_half(-0.05, edge=0.02))
    add_plane(bpy, scene, [(0.02, -2, -1), (0.02, 2, -1), (0.4, 2, 0), (0.4, -2, 0)])
    scene.render.use_border = scene.render.use_crop_to_border = True
    scene.render.border_min_x, scene.render.border_max_y = 0.1, 0.9
    scene.view_layers[0].use_pass_z = True
    by_gpu = shoot(bpy, scene, tmp_path)
    scene.headstudio_render.device = "CPU"
    by_cpu = shoot(bpy, scene, tmp_path)
    assert 0.1 < by_gpu[..., 3].mean() < 0.9
    # An eighth: one of the edge's samples. More only for a splat that lies in a wall to the depth buffer's last digit
    assert (np.abs(by_cpu[..., 3] - by_gpu[..., 3]) > 0.13).mean() < 2e-3
    assert psnr(by_cpu, by_gpu[..., :3] * by_gpu[..., 3:]) > 40
    assert addon.cpu_render._current is None  # the engine's process has ended with the render


def test_the_cpu_draws_the_border_alone(bpy, scene, addon, rig, camera, engine, tmp_path, monkeypatch):
    """As it is in the whole picture."""
    scene.headstudio_render.device = "CPU"
    whole = shoot(bpy, scene, tmp_path)
    scene.render.use_border = scene.render.use_crop_to_border = True
    scene.render.border_min_x, scene.render.border_max_x = 0.4, 0.55
    scene.render.border_min_y, scene.render.border_max_y = 0.45, 0.8
    drawn, draw = [], addon.cpu_render._Painter.draw
    monkeypatch.setattr(addon.cpu_render._Painter, "draw", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    part = shoot(bpy, scene, tmp_path)
    height, width = part.shape[:2]
    assert drawn[0]["alpha"].shape == (height, width)
    top, left = len(whole) - int(0.8 * len(whole)), int(0.4 * whole.shape[1])
    assert part[..., 3].mean() > 0.3
    np.testing.assert_allclose(part, whole[top : top + height, left : left + width], atol=2e-3)


def test_an_engine_that_is_not_there_is_named(bpy, scene, rig, camera, monkeypatch, tmp_path):
    monkeypatch.setenv("HEADSTUDIO_ENGINE", "/nowhere/headstudio")
    scene.headstudio_render.device = "CPU"
    with pytest.raises(RuntimeError, match=r"/nowhere/headstudio is not the HeadStudio engine"):
        shoot(bpy, scene, tmp_path)


def test_an_engine_that_dies_tells_why(bpy, scene, addon, rig, camera, monkeypatch, tmp_path):
    program = tmp_path / "headstudio"
    program.write_text("#!/bin/sh\necho out of memory >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("HEADSTUDIO_ENGINE", str(program))
    scene.headstudio_render.device = "CPU"
    with pytest.raises(RuntimeError, match=r"ended before the picture was done. out of memory"):
        shoot(bpy, scene, tmp_path)
    assert addon.cpu_render._current is None


def test_cancelling_ends_an_engine_that_does_not_answer(addon, monkeypatch, tmp_path):
    program = tmp_path / "headstudio"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setenv("HEADSTUDIO_ENGINE", str(program))
    looks = iter([True, True, False])
    painter = addon.cpu_render._painter()
    assert painter.draw({"means": np.zeros((1, 3))}, lambda _done: next(looks)) is None
    addon.cpu_render.stop()
    assert painter._process.poll() is not None
    assert addon.cpu_render._on_render_over not in [*addon.bpy.app.handlers.render_complete]


WITHOUT_GPU = """
import os, sys
import bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.extensions.package_install_files(repo="user_default", filepath=sys.argv[1], enable_on_install=True)
scene = bpy.context.scene
scene.camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
scene.render.engine = "HEADSTUDIO"
scene.render.resolution_x = scene.render.resolution_y = 32
try:
    bpy.ops.render.render()
except RuntimeError as error:
    print("REFUSED", error)
scene.headstudio_render.device = "CPU"
print("BY CPU", bpy.ops.render.render())
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a GPU context needs no library that may be missing")
@pytest.mark.parametrize(("missing", "package"), [("library", "libegl1"), ("driver", "libgl1-mesa-dri")])
def test_without_a_gpu_the_missing_library_is_named_and_blender_lives(
    extension_zip, engine, tmp_path, missing, package
):
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "BLENDER_USER_RESOURCES": str(tmp_path),
        "HEADSTUDIO_ENGINE": os.environ["HEADSTUDIO_ENGINE"],
    }
    if missing == "library":
        (tmp_path / "libEGL.so.1").write_text("this is no library")
        environment["LD_LIBRARY_PATH"] = str(tmp_path)
    else:
        environment["__EGL_VENDOR_LIBRARY_FILENAMES"] = str(tmp_path / "none.json")
    command = this_blender.command(WITHOUT_GPU, extension_zip)
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no GPU to render with" in done.stdout.partition("REFUSED")[2], done.stdout + done.stderr
    assert package in done.stdout
    assert "BY CPU {'FINISHED'}" in done.stdout
