"""Exports against the engine: PLY files as ``headstudio pose`` writes them, and the avatar file itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from headstudio.avatar.file import Avatar, bake_identity, load_avatar, save_avatar
from headstudio.avatar.posing import pose_splats
from headstudio.export.ply import read_ply
from pictures import random_splats
from plyfile import PlyData
from scipy.spatial.transform import Rotation
from test_final_render_device import ENGINE

AXES = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # Blender's to the engine's


@pytest.fixture
def file(default_head, tmp_path) -> Path:
    """An avatar of noise on the default head, as a file."""
    head = bake_identity(default_head)
    path = tmp_path / "noise.avatar.npz"
    save_avatar(path, Avatar(head, random_splats(head, 2000, 16), {"prompt": "noise", "seed": 3, "ä": [1.5, None]}))
    return path


@pytest.fixture
def mesh(bpy, scene, file):
    assert bpy.ops.import_scene.headstudio_avatar(filepath=str(file)) == {"FINISHED"}
    mesh = bpy.data.objects["noise"]
    bpy.context.view_layer.objects.active = mesh
    return mesh


def engine_command(*arguments) -> None:
    beside = Path(sys.executable).with_name("headstudio")
    command = [beside if beside.is_file() else ENGINE, *arguments]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=120)


def test_ply_equals_headstudio_pose(bpy, mesh, file, tmp_path):
    keys = mesh.data.shape_keys.key_blocks
    keys["mouthSmileLeft"].value, keys["jawOpen"].value, keys["eyeLookUpRight"].value = 0.8, 0.6, 0.5
    assert bpy.ops.export_scene.headstudio_ply(filepath=str(tmp_path / "blender.ply")) == {"FINISHED"}
    sliders = ("mouthSmileLeft=0.8", "jawOpen=0.6", "eyeLookUpRight=0.5")
    options = [word for slider in sliders for word in ("--set", slider)]
    engine_command("pose", file, *options, "--out", tmp_path / "engine.ply")
    got, wanted = (PlyData.read(tmp_path / f"{name}.ply")["vertex"] for name in ("blender", "engine"))
    assert [p.name for p in got.properties] == [p.name for p in wanted.properties]
    for name in "xyz":
        np.testing.assert_allclose(got[name], wanted[name], atol=1e-5)  # metres
    ours, theirs = read_ply(tmp_path / "blender.ply"), read_ply(tmp_path / "engine.ply")
    np.testing.assert_allclose(ours.scales, theirs.scales, atol=1e-5)  # metres
    np.testing.assert_allclose(ours.opacities, theirs.opacities, atol=1e-6)
    # A triangle's axes follow from differences of its corners, whose float32 digits are worth 1e-8 of a few millimetres
    np.testing.assert_allclose(ours.sh, theirs.sh, atol=2e-4)
    np.testing.assert_allclose(np.abs((ours.quats * theirs.quats).sum(1)), 1, atol=1e-6)


def test_the_objects_transform_turns_everything(bpy, mesh, file, tmp_path):
    """A rotation, a uniform scale and a move act on positions, rotations, scales and SH."""
    avatar = load_avatar(file)
    turn = Rotation.from_euler("xyz", (0.4, -0.7, 1.1))
    rig = mesh.parent
    rig.rotation_euler, rig.scale, rig.location = (0.4, -0.7, 1.1), (2.5, 2.5, 2.5), (1, -2, 0.5)
    path = tmp_path / "turned.ply"
    assert bpy.ops.export_scene.headstudio_ply(filepath=str(path), axis_forward="-Y", axis_up="Z") == {"FINISHED"}
    blender = avatar.head.vertices @ AXES  # rows times the inverse of AXES
    world = 2.5 * turn.apply(blender) + [1, -2, 0.5]
    expected = pose_splats(avatar.splats, world.astype(np.float32), avatar.head.triangles)
    got = read_ply(path)
    np.testing.assert_allclose(got.means, expected.means, atol=1e-5)
    np.testing.assert_allclose(got.scales, expected.scales, atol=1e-5)
    np.testing.assert_allclose(got.sh, expected.sh, atol=1e-3)
    np.testing.assert_allclose(np.abs((got.quats * expected.quats).sum(1)), 1, atol=1e-6)
    at_rest = pose_splats(avatar.splats, avatar.head.vertices, avatar.head.triangles)
    np.testing.assert_allclose(got.scales, 2.5 * at_rest.scales, rtol=1e-3)
    assert np.abs(got.sh - at_rest.sh).max() > 0.1


def test_a_range_of_frames(bpy, scene, mesh, tmp_path):
    scene.frame_start, scene.frame_end = 1, 250
    scene.frame_set(7)
    path = str(tmp_path / "s.ply")
    done = bpy.ops.export_scene.headstudio_ply(filepath=path, sequence=True, frame_start=9, frame_end=11)
    assert done == {"FINISHED"}
    assert sorted(path.name for path in tmp_path.glob("*.ply")) == ["s_0009.ply", "s_0010.ply", "s_0011.ply"]
    assert scene.frame_current == 7
    with pytest.raises(RuntimeError, match="no frames from 5 to 4"):
        bpy.ops.export_scene.headstudio_ply(filepath=path, sequence=True, frame_start=5, frame_end=4)


def test_the_avatar_file_comes_out_as_it_went_in(bpy, mesh, file, tmp_path):
    """Byte for byte, after a stay in a .blend and poses."""
    blend = str(tmp_path / "avatar.blend")
    mesh.data.shape_keys.key_blocks["jawOpen"].value = 1
    bpy.ops.wm.save_as_mainfile(filepath=blend)
    bpy.ops.wm.open_mainfile(filepath=blend)
    bpy.context.view_layer.objects.active = bpy.data.objects["noise"]
    out = tmp_path / "out.avatar.npz"
    assert bpy.ops.export_scene.headstudio_avatar(filepath=str(out)) == {"FINISHED"}
    assert out.read_bytes() == file.read_bytes()


def test_an_avatar_without_its_head_is_refused(bpy, addon, mesh, tmp_path):
    splats = mesh.data.headstudio.splats
    whole = splats[addon.export_avatar.KEPT]
    for packed in (whole[:1000], b"", None):
        if packed is None:
            del splats[addon.export_avatar.KEPT]
        else:
            splats[addon.export_avatar.KEPT] = packed
        with pytest.raises(RuntimeError, match="noise splats"):
            bpy.ops.export_scene.headstudio_avatar(filepath=str(tmp_path / "out.avatar.npz"))
    assert not (tmp_path / "out.avatar.npz").exists()


def test_provenance_can_be_read_in_blender(mesh):
    assert json.loads(mesh.data.headstudio.splats["provenance"])["seed"] == 3
