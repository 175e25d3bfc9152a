"""Exports against the engine: PLY files as ``headstudio pose`` writes them, and the avatar file itself."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import this_blender
from headstudio.avatar.file import Avatar, bake_identity, save_avatar
from headstudio.avatar.posing import pose_splats
from headstudio.export.ply import read_ply
from pictures import random_splats
from plyfile import PlyData
from scipy.spatial.transform import Rotation

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
    command = [this_blender.engine(), *arguments]
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
    # Blender's meshes and shape keys are float32: 1e-8 m, which turns the axes of a triangle 0.2 mm high by 1e-4
    for got, wanted in ((signed(ours.quats, theirs.quats), theirs.quats), (ours.sh, theirs.sh)):
        error = np.abs(got - wanted)
        assert np.quantile(error, 0.99) < 1e-5
        assert error.max() < 1e-4
    np.testing.assert_array_equal(ours.sh[:, 0], theirs.sh[:, 0])  # all that avatars of degree 0 have


def signed(quats, like):
    """The same rotations, each with the sign of its counterpart."""
    return quats * np.sign((quats * like).sum(1, keepdims=True))


@pytest.mark.parametrize("coefficients", [1, 4, 16])
@pytest.mark.parametrize(
    ("angles", "scale", "location"),
    [((0, 0, 0), 1.0, (2, 0, 0)), ((0.4, -0.7, 1.1), 2.5, (1, -2, 0.5)), ((2, 0.1, -3), 0.5, (-40, 60, 25))],
)
def test_the_objects_transform_acts_on_everything(
    bpy, scene, addon, avatar, tmp_path, angles, scale, location, coefficients
):
    """Positions, rotations, scales and SH to 1e-5, also far from the origin, for the mesh as Blender evaluates it."""
    splats = dataclasses.replace(avatar.splats, sh=avatar.splats.sh[:, :coefficients])
    rig = addon.import_avatar.import_avatar(dataclasses.replace(avatar, splats=splats), "Noise", scene.collection)
    rig.mesh.data.shape_keys.key_blocks[1].value = 0.7
    rig.armature.rotation_euler, rig.armature.scale, rig.armature.location = angles, (scale,) * 3, location
    bpy.context.view_layer.objects.active = rig.mesh
    path = tmp_path / "turned.ply"
    assert bpy.ops.export_scene.headstudio_ply(filepath=str(path), axis_forward="-Y", axis_up="Z") == {"FINISHED"}
    evaluated = rig.mesh.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    local = np.array([vertex.co for vertex in evaluated.vertices], np.float64)
    world = scale * Rotation.from_euler("xyz", angles).apply(local) + location
    expected = pose_splats(splats, world, avatar.head.triangles)
    got = read_ply(path)
    np.testing.assert_allclose(got.means, expected.means, atol=1e-5)
    np.testing.assert_allclose(got.scales, expected.scales, atol=1e-5)
    np.testing.assert_allclose(signed(got.quats, expected.quats), expected.quats, atol=1e-5)
    np.testing.assert_allclose(got.sh, expected.sh, atol=1e-5)
    at_rest = pose_splats(splats, local, avatar.head.triangles)
    np.testing.assert_allclose(got.scales, scale * at_rest.scales, rtol=1e-5)
    turned = coefficients > 1 and any(angles)
    assert (np.abs(got.sh - at_rest.sh).max() > 0.1) == turned


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
