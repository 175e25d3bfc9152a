"""The rig that Blender evaluates against the engine's skinning, for the default head and one with every corrective."""

import dataclasses

import numpy as np
import pytest
from headstudio.avatar.file import Avatar, bake_identity, save_avatar
from headstudio.heads.arrays import Controls
from headstudio.heads.skinning import skin
from pictures import random_splats
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
    local = np.array(bone.bone.matrix_local.to_3x3()).T @ addon.rig_arrays.ENGINE_TO_BLENDER @ axis_angle
    angle = float(np.linalg.norm(local))
    bone.rotation_mode = "QUATERNION"
    bone.rotation_quaternion = Quaternion(local / angle if angle else (1, 0, 0), angle)


def evaluated_vertices(bpy, item):
    evaluated = item.evaluated_get(bpy.context.evaluated_depsgraph_get())
    vertices = np.empty(3 * len(evaluated.data.vertices), np.float32)
    evaluated.data.vertices.foreach_get("co", vertices)
    return vertices.reshape(-1, 3)


def test_evaluated_mesh_equals_the_engines_skinning(bpy, scene, addon, head):
    rig = addon.rig.build_rig(addon.rig_arrays.rig_arrays(head), "Head", scene.collection)
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
        expected = addon.rig_arrays.to_blender(skin(head, expression, joints))
        np.testing.assert_allclose(evaluated_vertices(bpy, rig.mesh), expected, atol=1e-5)


def test_rest_pose_keys_and_bones(bpy, scene, addon, head):
    rig = addon.rig.build_rig(addon.rig_arrays.rig_arrays(head), "Head", scene.collection)
    keys = rig.mesh.data.shape_keys.key_blocks
    assert all(key.value == 0 for key in keys)
    assert set(head.controls.names) <= set(keys.keys())
    assert [bone.name for bone in rig.armature.data.bones if bone.use_deform] == list(head.joint_names)
    centres = addon.rig_arrays.to_blender(head.joint_regressor @ head.vertices)
    for joint, centre in zip(head.joint_names, centres, strict=True):
        np.testing.assert_allclose(rig.armature.data.bones[joint].head_local, centre, atol=1e-6)
    # The face looks along -y, as Blender's front view expects, with the subject's left at +x
    left, right = (rig.armature.data.bones[f"eye_{side}"].head_local for side in ("left", "right"))
    assert left.x > right.x
    np.testing.assert_allclose(evaluated_vertices(bpy, rig.mesh), addon.rig_arrays.to_blender(head.vertices), atol=1e-6)
    uv = np.empty(6 * len(head.triangles), np.float32)
    rig.mesh.data.uv_layers[0].data.foreach_get("uv", uv)
    np.testing.assert_allclose(uv.reshape(-1, 3, 2), head.uv[head.uv_triangles], atol=1e-6)


def test_mode_and_selection_survive_an_import(bpy, scene, addon, head):
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.object
    bpy.ops.object.mode_set(mode="EDIT")
    addon.rig.build_rig(addon.rig_arrays.rig_arrays(head), "Head", scene.collection)
    assert bpy.context.view_layer.objects.active == cube
    assert bpy.context.selected_objects == [cube]
    assert bpy.context.mode == "EDIT_MESH"
    assert list(bpy.data.scenes) == [scene]


def test_positive_x_nods_opens_and_looks_down(bpy, scene, addon, default_head):
    """One rule for all bones: x is the subject's left, and turning by +x tips what the bone carries down."""
    rig = addon.rig.build_rig(addon.rig_arrays.rig_arrays(default_head), "Head", scene.collection)
    for name in ("neck", "jaw", "eye_left", "eye_right"):
        bone = rig.armature.pose.bones[name]
        np.testing.assert_allclose(bone.bone.x_axis, (1, 0, 0), atol=1e-5)
        bone.rotation_mode = "XYZ"
        bpy.context.view_layer.update()
        before = np.array(rig.armature.matrix_world @ bone.tail)
        bone.rotation_euler.x = 0.3
        bpy.context.view_layer.update()
        after = np.array(rig.armature.matrix_world @ bone.tail)
        bone.rotation_euler.x = 0
        if name == "neck":
            assert after[1] < before[1] - 0.01, "nods to the front"
        else:
            assert after[2] < before[2] - 0.005, name
    bones = rig.armature.data.bones
    skull, jaw, eye = bones["neck"].tail_local, bones["jaw"].tail_local, bones["eye_left"]
    assert skull.z == pytest.approx(eye.head_local.z, abs=1e-5)
    chin = addon.rig_arrays._landmark(default_head, addon.rig_arrays.CHIN)
    np.testing.assert_allclose(jaw, chin, atol=1e-5)
    assert eye.tail_local.y < eye.head_local.y


def all_drivers(rig):
    return [*rig.armature.animation_data.drivers, *rig.mesh.data.shape_keys.animation_data.drivers]


def test_a_joint_that_every_slider_turns(bpy, scene, addon):
    """As on FLAME heads, where each of ARKit's sliders is a solved mix: more terms than one driver can hold."""
    head = synthetic_head(levels=2)
    count, rng = 52, np.random.default_rng(3)
    jaw, eye = head.joint_names.index("jaw"), head.joint_names.index("eye_left")
    to_joints = np.zeros((count, len(head.joint_names), 3), np.float32)
    to_joints[:, jaw] = rng.normal(size=(count, 3)) * 0.1
    to_joints[:7, eye] = rng.normal(size=(7, 3)) * 0.1
    mix = 0.3 * rng.normal(size=(count, len(head.expression_names))).astype(np.float32)
    head = dataclasses.replace(head, controls=Controls(tuple(f"slider{i}" for i in range(count)), mix, to_joints))
    rig = addon.rig.build_rig(addon.rig_arrays.rig_arrays(head), "Head", scene.collection)
    for curve in all_drivers(rig):
        assert curve.driver.is_valid
        assert len(curve.driver.expression) < 256
        # What needs Python does not run in a file that came from elsewhere
        assert curve.driver.is_simple_expression, curve.driver.expression
    sliders = {f"slider{i}": float(value) for i, value in enumerate(rng.random(count))}
    for name, value in sliders.items():
        rig.mesh.data.shape_keys.key_blocks[name].value = value
    bpy.context.view_layer.update()
    expected = addon.rig_arrays.to_blender(skin(head, *head.drive(sliders)))
    np.testing.assert_allclose(evaluated_vertices(bpy, rig.mesh), expected, atol=1e-5)


def test_the_default_heads_drivers_need_no_python(scene, addon, default_head):
    rig = addon.rig.build_rig(addon.rig_arrays.rig_arrays(default_head), "Head", scene.collection)
    assert len(all_drivers(rig)) > 12
    assert all(curve.driver.is_simple_expression for curve in all_drivers(rig))


def pose(addon, rig, head, turn=(0.2, -0.1, 0.15)):
    """An expression and a turned jaw; returns the vertices that the engine makes of them."""
    sliders = dict(zip(head.controls.names[-2:], (0.7, 0.4), strict=True))
    for name, value in sliders.items():
        rig.mesh.data.shape_keys.key_blocks[name].value = value
    own = np.zeros((len(head.joint_names), 3))
    own[head.joint_names.index("jaw")] = turn
    pose_bone(addon, rig, "jaw", own[head.joint_names.index("jaw")])
    expression, driven = head.drive(sliders)
    joints = (Rotation.from_rotvec(driven) * Rotation.from_rotvec(own)).as_rotvec()
    return addon.rig_arrays.to_blender(skin(head, expression, joints))


def rig_of(addon, objects):
    mesh = next(item for item in objects if item.type == "MESH")
    armature = next(item for item in objects if item.type == "ARMATURE")
    return addon.rig.Rig(mesh.users_collection[0], mesh, armature)


@pytest.fixture
def avatar_rig(scene, addon):
    head = bake_identity(synthetic_head(levels=2))
    avatar = Avatar(head, random_splats(head, 500, 4), {})
    return addon.import_avatar.import_avatar(avatar, "Head", scene.collection), head


def test_a_duplicate_is_a_rig_of_its_own(bpy, scene, addon, avatar_rig):
    rig, head = avatar_rig
    for item in rig.collection.objects:
        item.select_set(True)
    bpy.ops.object.duplicate()
    copy = rig_of(addon, bpy.context.selected_objects)
    assert copy.mesh != rig.mesh
    assert copy.mesh.parent == copy.armature
    assert copy.mesh.modifiers["Armature"].object == copy.armature
    assert copy.mesh.data.headstudio.splats == rig.mesh.data.headstudio.splats
    for curve in all_drivers(copy):
        targets = {target.id for variable in curve.driver.variables for target in variable.targets}
        assert targets <= {copy.armature, copy.mesh.data.shape_keys}, curve.data_path
    first = pose(addon, rig, head)
    second = pose(addon, copy, head, turn=(-0.1, 0.3, 0.0))
    bpy.context.view_layer.update()
    np.testing.assert_allclose(evaluated_vertices(bpy, rig.mesh), first, atol=1e-5)
    np.testing.assert_allclose(evaluated_vertices(bpy, copy.mesh), second, atol=1e-5)


def test_two_avatars_do_not_disturb_each_other(bpy, scene, addon, head):
    rigs = [addon.rig.build_rig(addon.rig_arrays.rig_arrays(head), "Head", scene.collection) for _ in range(2)]
    assert rigs[0].collection != rigs[1].collection
    expected = pose(addon, rigs[1], head)
    bpy.context.view_layer.update()
    rest = addon.rig_arrays.to_blender(head.vertices)
    np.testing.assert_allclose(evaluated_vertices(bpy, rigs[0].mesh), rest, atol=1e-6)
    np.testing.assert_allclose(evaluated_vertices(bpy, rigs[1].mesh), expected, atol=1e-5)


@pytest.mark.parametrize("how", ["append", "override"])
def test_a_rig_from_another_file_is_posed_here(bpy, scene, addon, avatar_rig, tmp_path, how):
    _, head = avatar_rig
    path = str(tmp_path / "library.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    with bpy.data.libraries.load(path, link=how == "override") as (there, here):
        here.collections = there.collections
    collection = here.collections[0]
    if how == "override":
        collection = collection.override_hierarchy_create(
            bpy.context.scene, bpy.context.view_layer, do_fully_editable=True
        )
    else:
        bpy.context.scene.collection.children.link(collection)
    rig = rig_of(addon, collection.objects)
    assert len(rig.mesh.data.headstudio.splats.vertices) == 500
    expected = pose(addon, rig, head)
    bpy.context.view_layer.update()
    np.testing.assert_allclose(evaluated_vertices(bpy, rig.mesh), expected, atol=1e-5)


def test_an_import_is_one_undo_step(bpy, scene, addon, avatar_rig, tmp_path):
    _, head = avatar_rig
    path = tmp_path / "one.avatar.npz"
    save_avatar(path, Avatar(head, random_splats(head, 500, 4), {}))
    before = {name: len(getattr(bpy.data, name)) for name in ("objects", "meshes", "armatures", "collections")}
    bpy.ops.ed.undo_push(message="before")
    assert bpy.ops.import_scene.headstudio_avatar("EXEC_DEFAULT", True, filepath=str(path)) == {"FINISHED"}
    assert "one" in bpy.data.objects
    bpy.ops.ed.undo()
    assert {name: len(getattr(bpy.data, name)) for name in before} == before
    bpy.ops.ed.redo()
    assert len(bpy.data.objects["one"].data.headstudio.splats.vertices) == 500
