"""Expressions on the timeline and PLY files of what it shows."""

import numpy as np
import pytest
from headstudio.avatar.file import Avatar, bake_identity
from headstudio.avatar.posing import pose_splats
from headstudio.export.ply import read_ply
from headstudio.heads.expressions import PRESETS
from headstudio.heads.skinning import skin
from pictures import random_splats


@pytest.fixture
def avatar(default_head):
    head = bake_identity(default_head)
    return Avatar(head, random_splats(head, 2000, 4), {})


@pytest.fixture
def rig(bpy, scene, addon, avatar):
    rig = addon.import_avatar.import_avatar(avatar, "Noise", scene.collection)
    bpy.context.view_layer.objects.active = rig.armature
    return rig


def values(rig):
    return {key.name: key.value for key in rig.mesh.data.shape_keys.key_blocks if abs(key.value) > 1e-6}


def test_preset_mirror_reset(bpy, rig):
    bpy.ops.headstudio.apply_preset(preset="wink", strength=0.5)
    assert values(rig) == pytest.approx({name: 0.5 * value for name, value in PRESETS["wink"].items()})
    bpy.ops.headstudio.mirror_expression()
    assert values(rig)["eyeBlinkRight"] == pytest.approx(0.5)
    assert "eyeBlinkLeft" not in values(rig)
    rig.armature.pose.bones["neck"].rotation_quaternion = (0.9, 0.1, 0.2, 0.3)
    bpy.ops.headstudio.reset_expression()
    assert values(rig) == {}
    assert tuple(rig.armature.pose.bones["neck"].rotation_quaternion) == (1, 0, 0, 0)


def test_keyed_expression_plays_back(bpy, scene, rig):
    scene.frame_set(1)
    bpy.ops.headstudio.key_expression()
    scene.frame_set(11)
    bpy.ops.headstudio.apply_preset(preset="open mouth")
    rig.armature.pose.bones["neck"].rotation_mode = "XYZ"
    rig.armature.pose.bones["neck"].rotation_euler = (0, 0.4, 0)
    bpy.ops.headstudio.key_expression()
    jaw = rig.mesh.data.shape_keys.key_blocks["jawOpen"]
    scene.frame_set(1)
    assert jaw.value == pytest.approx(0)
    scene.frame_set(6)
    assert jaw.value == pytest.approx(0.4, abs=0.01)
    scene.frame_set(11)
    assert jaw.value == pytest.approx(0.8)


def test_sequence_of_ply_equals_the_engine(bpy, scene, rig, avatar, tmp_path):
    """In the engine's axes each file is what the engine poses; an object's own transform comes on top."""
    scene.frame_start, scene.frame_end = 1, 3
    smile = rig.mesh.data.shape_keys.key_blocks["mouthSmileLeft"]
    for frame, value in ((1, 0.0), (3, 1.0)):
        smile.value = value
        smile.keyframe_insert("value", frame=frame)
    scene.frame_set(2)
    assert bpy.ops.export_scene.headstudio_ply(filepath=str(tmp_path / "s.ply"), sequence=True) == {"FINISHED"}
    assert scene.frame_current == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s_0001.ply", "s_0002.ply", "s_0003.ply"]
    for frame in (1, 3):
        scene.frame_set(frame)
        expression, joints = avatar.head.drive({"mouthSmileLeft": smile.value})
        expected = pose_splats(avatar.splats, skin(avatar.head, expression, joints), avatar.head.triangles)
        got = read_ply(tmp_path / f"s_{frame:04d}.ply")
        np.testing.assert_allclose(got.means, expected.means, atol=1e-5)
        np.testing.assert_allclose(got.scales, expected.scales, rtol=1e-3, atol=1e-7)
        np.testing.assert_allclose(got.sh, expected.sh, atol=1e-3)
        flips = np.sign((got.quats * expected.quats).sum(1, keepdims=True))
        np.testing.assert_allclose(flips * got.quats, expected.quats, atol=1e-3)


def test_an_unwritable_ply_is_one_sentence(bpy, rig, tmp_path):
    with pytest.raises(RuntimeError, match=r"no-such-folder"):
        bpy.ops.export_scene.headstudio_ply(filepath=str(tmp_path / "no-such-folder" / "s.ply"))
