"""The .blend holds all: saved, moved, opened, appended, linked, overridden, undone, in this Blender and another."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import this_blender
from headstudio.avatar.file import save_avatar
from pictures import psnr
from shots import read, shoot


@pytest.fixture
def posed(rig, camera):
    """A smile and a turned head, on frame 5."""
    rig.mesh.data.shape_keys.key_blocks["mouthSmileLeft"].value = 0.7
    neck = rig.armature.pose.bones["neck"]
    neck.rotation_mode = "XYZ"
    neck.rotation_euler = (0.1, 0.4, 0)
    return rig


@pytest.fixture
def saved(bpy, scene, posed, tmp_path) -> tuple[Path, np.ndarray]:
    """A .blend and what it shows; the folder in which it was saved and the avatar's file are gone."""
    picture = shoot(bpy, scene, tmp_path)
    folder = tmp_path / "first"
    folder.mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "avatar.blend"))
    blend = tmp_path / "moved.blend"
    (folder / "avatar.blend").rename(blend)
    folder.rmdir()
    return blend, picture


def same(picture: np.ndarray, other: np.ndarray) -> bool:
    assert other[..., 3].max() > 0.9
    return float(np.square(picture - other).mean()) < 1e-6


def test_reopened_from_another_folder(bpy, saved, tmp_path):
    blend, picture = saved
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.wm.open_mainfile(filepath=str(blend))
    assert same(shoot(bpy, bpy.context.scene, tmp_path), picture)
    assert not [path for path in bpy.utils.blend_paths(absolute=True) if str(tmp_path) not in path]


@pytest.mark.parametrize("how", ["append", "link", "override"])
def test_brought_into_another_file(bpy, saved, scene, tmp_path, how):
    blend, picture = saved
    camera_at = scene.camera.matrix_world.copy()
    bpy.ops.wm.read_homefile(use_empty=True)
    scene = bpy.context.scene
    with bpy.data.libraries.load(str(blend), link=how != "append") as (there, here):
        here.collections = [name for name in there.collections if name == "Noise"]
    (collection,) = here.collections
    if how == "override":
        collection = collection.override_hierarchy_create(scene, bpy.context.view_layer)
    else:
        scene.collection.children.link(collection)
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    camera.matrix_world, camera.data.clip_start = camera_at, 0.01
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.render.engine, scene.render.film_transparent = "HEADSTUDIO", True
    scene.render.resolution_y, scene.render.resolution_x = picture.shape[:2]
    scene.view_settings.view_transform = "Standard"
    assert same(shoot(bpy, scene, tmp_path), picture)
    if how == "override":
        rig = next(item for item in collection.all_objects if item.type == "ARMATURE")
        rig.pose.bones["neck"].rotation_euler = (0.1, -0.4, 0)
        turned = shoot(bpy, scene, tmp_path)
        assert psnr(turned, picture[..., :3] * picture[..., 3:]) < 30
        again = tmp_path / "override.blend"
        bpy.ops.wm.save_as_mainfile(filepath=str(again))
        bpy.ops.wm.open_mainfile(filepath=str(again))
        assert same(shoot(bpy, bpy.context.scene, tmp_path), turned)


def test_undo_and_redo_show_what_was(bpy, scene, posed, tmp_path):
    def smile():
        return bpy.data.objects["Noise"].data.shape_keys.key_blocks["mouthSmileLeft"]

    bpy.ops.ed.undo_push(message="smiling")
    smiling = shoot(bpy, scene, tmp_path)
    smile().value = 0
    bpy.data.objects["Noise"].location.x = 0.03
    bpy.ops.ed.undo_push(message="serious, moved")
    serious = shoot(bpy, bpy.context.scene, tmp_path)
    assert not same(serious, smiling)
    bpy.ops.ed.undo()
    assert smile().value == pytest.approx(0.7)
    assert same(shoot(bpy, bpy.context.scene, tmp_path), smiling)
    bpy.ops.ed.redo()
    assert same(shoot(bpy, bpy.context.scene, tmp_path), serious)


def test_a_duplicate_shares_the_splats_and_shows_them(bpy, scene, posed, tmp_path):
    alone = shoot(bpy, scene, tmp_path)
    copy = posed.mesh.copy()
    copy.data = posed.mesh.data.copy()
    scene.collection.objects.link(copy)
    posed.mesh.hide_render = True
    assert copy.data.headstudio.splats == posed.mesh.data.headstudio.splats
    assert same(shoot(bpy, scene, tmp_path), alone)


def test_rendered_by_blender_in_the_background(bpy, saved, extension_zip, tmp_path):
    """``blender -b FILE -a``, here by a script in a process of its own: every frame of the range."""
    blend, picture = saved
    script = (
        "import os, sys, bpy\n"
        "extension, blend = sys.argv[1:]\n"
        "bpy.ops.extensions.package_install_files("
        "repo='user_default', filepath=extension, enable_on_install=True)\n"
        "bpy.ops.wm.open_mainfile(filepath=blend)\n"
        "scene = bpy.context.scene\n"
        "scene.frame_start, scene.frame_end = 4, 5\n"
        "scene.render.filepath = '//frame_'\n"
        "bpy.ops.render.render(animation=True)\n"
        "os._exit(0)\n"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "BLENDER_USER_RESOURCES": str(tmp_path / "user")}
    command = this_blender.command(script, extension_zip, blend)
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    for frame in ("frame_0004.png", "frame_0005.png"):
        assert (blend.parent / frame).is_file(), done.stdout + done.stderr
        assert same(read(bpy, blend.parent / frame), picture)


@pytest.mark.skipif(not os.environ.get("BLENDER"), reason="BLENDER names no Blender executable")
@pytest.mark.skipif(bool(this_blender.EXECUTABLE), reason="this is the Blender that BLENDER names")
def test_opened_by_another_blender(bpy, saved, extension_zip, tmp_path):
    """BLENDER: an executable, perhaps of a newer version, that sees this machine's files."""
    blend, picture = saved
    out = tmp_path / "other.png"
    script = str(Path(__file__).with_name("saved_avatar.py"))
    arguments = ["-b", "--factory-startup", "--python", script, "--", str(extension_zip), str(blend), str(out)]
    environment = {**os.environ, "BLENDER_USER_RESOURCES": str(tmp_path / "user")}
    done = subprocess.run(
        [os.environ["BLENDER"], *arguments], capture_output=True, text=True, timeout=300, env=environment
    )
    assert "RENDERED" in done.stdout, done.stdout + done.stderr
    assert same(read(bpy, out), picture)


def test_the_avatars_file_is_not_needed_any_more(bpy, scene, avatar, camera, tmp_path):
    path = tmp_path / "noise.avatar.npz"
    save_avatar(path, avatar)
    bpy.ops.import_scene.headstudio_avatar(filepath=str(path))
    picture = shoot(bpy, scene, tmp_path)
    path.unlink()
    blend = tmp_path / "avatar.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))
    bpy.ops.wm.open_mainfile(filepath=str(blend))
    assert same(shoot(bpy, bpy.context.scene, tmp_path), picture)
