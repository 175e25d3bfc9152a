"""The rig that Blender evaluates against the engine's skinning, for the default head and one with every corrective."""

import numpy as np
import pytest
from headstudio.heads.skinning import skin
from scipy.spatial.transform import Rotation
from support.synthetic_head import synthetic_head


@pytest.fixture(params=["default", "synthetic"])
def head(request):
    if request.param == "default":
        return request.getfixturevalue("default_head")
    return synthetic_head(levels=2)


def pose_bone(addon, rig, joint, axis_angle):
    """Turn a bone by a rotation given in the engine's axes."""
    from mathutils import Quaternion

    bone = rig.armature.pose.bones[joint]
    local = np.array(bone.bone.matrix_local.to_3x3()).T @ addon.rig.ENGINE_TO_BLENDER @ axis_angle
    angle = float(np.linalg.norm(local))
    bone.rotation_mode = "QUATERNION"
    bone.rotation_quaternion = Quaternion(local / angle if angle else (1, 0, 0), angle)


def evaluated_vertices(bpy, item):
    evaluated = item.evaluated_get(bpy.context.evaluated_depsgraph_get())
    vertices = np.empty(3 * len(evaluated.data.vertices), np.float32)
    evaluated.data.vertices.foreach_get("co", vertices)
    return vertices.reshape(-1, 3)


def test_evaluated_mesh_equals_the_engines_skinning(bpy, scene, addon, head):
    rig = addon.rig.build_rig(head, "Head", scene.collection)
    keys = rig.mesh.data.shape_keys.key_blocks
    rng = np.random.default_rng(0)
    for _ in range(50):
        sliders = {name: float(rng.random()) * (rng.random() < 0.3) for name in head.controls.names}
        expression, driven = head.drive(sliders)
        own = rng.normal(size=(len(head.joint_names), 3)) * 0.3
        for name, value in sliders.items():
            keys[name].value = value
        for joint, turn in zip(head.joint_names, own, strict=True):
            pose_bone(addon, rig, joint, turn)
        bpy.context.view_layer.update()
        # What the sliders turn comes beneath what the animator turns
        joints = (Rotation.from_rotvec(driven) * Rotation.from_rotvec(own)).as_rotvec()
        expected = addon.rig.to_blender(skin(head, expression, joints))
        np.testing.assert_allclose(evaluated_vertices(bpy, rig.mesh), expected, atol=1e-5)


def test_rest_pose_keys_and_bones(bpy, scene, addon, head):
    rig = addon.rig.build_rig(head, "Head", scene.collection)
    keys = rig.mesh.data.shape_keys.key_blocks
    assert all(key.value == 0 for key in keys)
    assert set(head.controls.names) <= set(keys.keys())
    assert [bone.name for bone in rig.armature.data.bones if bone.use_deform] == list(head.joint_names)
    centres = addon.rig.to_blender(head.joint_regressor @ head.vertices)
    for joint, centre in zip(head.joint_names, centres, strict=True):
        np.testing.assert_allclose(rig.armature.data.bones[joint].head_local, centre, atol=1e-6)
    # The face looks along -y, as Blender's front view expects, with the subject's left at +x
    left, right = (rig.armature.data.bones[f"eye_{side}"].head_local for side in ("left", "right"))
    assert left.x > right.x
    np.testing.assert_allclose(evaluated_vertices(bpy, rig.mesh), addon.rig.to_blender(head.vertices), atol=1e-6)
    uv = np.empty(6 * len(head.triangles), np.float32)
    rig.mesh.data.uv_layers[0].data.foreach_get("uv", uv)
    np.testing.assert_allclose(uv.reshape(-1, 3, 2), head.uv[head.uv_triangles], atol=1e-6)


def test_selection_and_mode_survive_an_import(bpy, scene, addon, head):
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.object
    bpy.ops.object.mode_set(mode="EDIT")
    addon.rig.build_rig(head, "Head", scene.collection)
    assert bpy.context.view_layer.objects.active == cube
    assert bpy.context.selected_objects == [cube]
