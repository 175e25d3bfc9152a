"""Blender tests run against the built zip, installed as an extension into a fresh user folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import this_blender


@pytest.fixture(scope="session")
def extension_zip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    program = str(this_blender.ROOT / "build_addon.py")
    command = [this_blender.build_python(), program, "--output-folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(done.stdout.split()[-1])


@pytest.fixture(scope="session")
def bpy(extension_zip, tmp_path_factory):
    """Blender's bpy with the extension enabled. Blender reads its user folder when it starts, so once only."""
    if this_blender.EXECUTABLE:
        bpy = sys.modules["bpy"]
        check_user_folder(bpy)
    else:
        os.environ["BLENDER_USER_RESOURCES"] = str(tmp_path_factory.mktemp("blender"))
        bpy = pytest.importorskip("bpy")
    bpy.ops.wm.read_factory_settings(use_empty=True)
    done = bpy.ops.extensions.package_install_files(
        repo="user_default", filepath=str(extension_zip), enable_on_install=True
    )
    assert done == {"FINISHED"}
    yield bpy
    # bpy 4.5 hangs at exit while a render engine is registered
    bpy.ops.preferences.addon_disable(module="bl_ext.user_default.headstudio")


def check_user_folder(bpy) -> None:
    """An executable was given its user folder before it started; the tests must not write into somebody's own."""
    chosen = os.environ.get("BLENDER_USER_RESOURCES")
    if not chosen or Path(bpy.utils.resource_path("USER")) != Path(chosen):
        pytest.fail(
            "BLENDER_USER_RESOURCES must name a new folder before Blender starts, as tools/test_in_blender.py does"
        )
    files = [path for path in Path(chosen).rglob("*") if path.is_file()]
    if files:
        pytest.fail(f"Blender's user folder {chosen} is no new one: it holds {files[0]}")


def pytest_sessionfinish(session, exitstatus):
    session.config.blender_exit_status = int(exitstatus)


def pytest_unconfigure(config):
    """Leave without Blender's own clean-up, which now and then hangs in the software GPU driver."""
    if "bpy" in sys.modules and hasattr(config, "blender_exit_status"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.blender_exit_status)


@pytest.fixture
def scene(bpy):
    """An empty scene; the extension stays enabled."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    return bpy.context.scene


@pytest.fixture(scope="session")
def addon(bpy):
    """The installed extension's Blender half."""
    import importlib
    import pkgutil

    half = importlib.import_module("bl_ext.user_default.headstudio.blender_addon")
    for module in pkgutil.iter_modules(half.__path__, f"{half.__name__}."):
        importlib.import_module(module.name)
    return half


@pytest.fixture
def avatar():
    """3,000 splats of noise with all SH, on the synthetic head."""
    from headstudio.avatar.file import Avatar, bake_identity
    from pictures import random_splats
    from support.synthetic_head import synthetic_head

    head = bake_identity(synthetic_head(levels=3))
    return Avatar(head, random_splats(head, 3000, 16), {"prompt": "noise"})


@pytest.fixture
def rig(scene, addon, avatar):
    return addon.import_avatar.import_avatar(avatar, "Noise", scene.collection)


@pytest.fixture
def avatars(addon):
    """What a viewport knows of the avatars that it sees."""
    return addon.scene_avatars.SceneAvatars()


@pytest.fixture
def camera(bpy, scene):
    """Before the face, whose middle is near the origin; F12 is HEADSTUDIO's, on a transparent film, in Standard."""
    from shots import HEIGHT, WIDTH

    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    camera.data.clip_start, camera.data.ortho_scale = 0.01, 0.4
    camera.location, camera.rotation_euler = (0, -0.6, 0.02), (1.5707963, 0, 0)
    render = scene.render
    render.engine, render.film_transparent = "HEADSTUDIO", True
    render.resolution_x, render.resolution_y, render.resolution_percentage = WIDTH, HEIGHT, 100
    scene.view_settings.view_transform = "Standard"
    return camera
