"""An avatar's head as an ordinary rig: a mesh with shape keys, an armature, skin weights and driven correctives.

Blender's world has z up and a character faces -y; the engine's has y up and faces +z. Both have the subject's left at
+x, so the rig is the engine's head turned by a quarter about x.
"""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import numpy as np

from ..engine.heads.arrays import HeadArrays

# Engine axes (columns) in Blender's: (x, y, z) -> (x, -z, y)
ENGINE_TO_BLENDER = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])

DRIVE_SUFFIX = "_expression"  # the hidden bone that carries what sliders such as jawOpen add to a joint
CORRECTIVE_PREFIX = "pose "


@dataclass(frozen=True)
class Rig:
    """What ``build_rig`` made; both objects lie in ``collection``."""

    collection: bpy.types.Collection
    mesh: bpy.types.Object
    armature: bpy.types.Object


def to_blender(points: np.ndarray) -> np.ndarray:
    """Engine coordinates [..., 3] to Blender's, metres."""
    return points @ ENGINE_TO_BLENDER.T.astype(points.dtype)


def build_rig(head: HeadArrays, name: str, parent: bpy.types.Collection) -> Rig:
    """Make the rig in a new collection under ``parent``. Leaves the mode and the selection as they were."""
    collection = bpy.data.collections.new(name)
    parent.children.link(collection)
    armature = _armature_object(head, name, collection)
    mesh = _mesh_object(head, name, collection)
    _skin(head, mesh, armature)
    _drive_joints(head, mesh, armature)
    _drive_correctives(head, mesh, armature)
    return Rig(collection, mesh, armature)


def _mesh_object(head: HeadArrays, name: str, collection: bpy.types.Collection) -> bpy.types.Object:
    data = bpy.data.meshes.new(name)
    count = len(head.triangles)
    data.vertices.add(len(head.vertices))
    data.vertices.foreach_set("co", to_blender(head.vertices).ravel())
    data.loops.add(3 * count)
    data.loops.foreach_set("vertex_index", head.triangles.ravel())
    data.polygons.add(count)
    data.polygons.foreach_set("loop_start", np.arange(0, 3 * count, 3, dtype=np.int32))
    data.update(calc_edges=True)
    data.uv_layers.new(name="UVMap").data.foreach_set("uv", head.uv[head.uv_triangles].astype(np.float32).ravel())
    data.polygons.foreach_set("use_smooth", np.ones(count, dtype=bool))
    mesh = bpy.data.objects.new(name, data)
    collection.objects.link(mesh)

    mesh.shape_key_add(name="Basis", from_mix=False)
    # The named sliders come first: ARKit's 52 on every head. Components that are none (FLAME's) have no natural end.
    for key_name, mix in zip(head.controls.names, head.controls.to_expression, strict=True):
        _add_key(mesh, head, key_name, np.tensordot(mix, head.expression, 1), 0.0)
    for key_name, delta in zip(head.expression_names, head.expression, strict=True):
        if key_name not in head.controls.names:
            _add_key(mesh, head, key_name, delta, -1.0)
    return mesh


def _add_key(mesh: bpy.types.Object, head: HeadArrays, name: str, delta: np.ndarray, lowest: float):
    key = mesh.shape_key_add(name=name, from_mix=False)
    key.slider_min, key.slider_max = lowest, 1.0
    key.value = 0.0  # Blender 5 creates keys at 1
    key.data.foreach_set("co", to_blender(head.vertices + delta).ravel())
    return key


def _armature_object(head: HeadArrays, name: str, collection: bpy.types.Collection) -> bpy.types.Object:
    """Bones at the joints. Edit mode is the only way to make bones, so the view layer's state is kept and put back."""
    armature = bpy.data.objects.new(f"{name} rig", bpy.data.armatures.new(f"{name} rig"))
    collection.objects.link(armature)
    layer = bpy.context.view_layer
    active, selected = layer.objects.active, list(bpy.context.selected_objects)
    if bpy.context.mode != "OBJECT":
        bpy.ops.object.mode_set(mode="OBJECT")
    layer.objects.active = armature
    bpy.ops.object.mode_set(mode="EDIT")
    centres = to_blender(head.joint_regressor @ head.vertices)
    bones = armature.data.edit_bones
    for index, joint in enumerate(head.joint_names):
        for suffix in ("", DRIVE_SUFFIX) if _is_driven(head, index) else ("",):
            bone = bones.new(joint + suffix)
            bone.head = centres[index]
            bone.tail = _bone_tail(head, joint, index, centres)
            bone.align_roll((0.0, -1.0, 0.0) if abs(bone.vector.normalized().y) < 0.9 else (0.0, 0.0, 1.0))
            parent = head.parents[index]
            if parent >= 0:
                bone.parent = bones[head.joint_names[parent]]
            bone.use_deform = not suffix
    bpy.ops.object.mode_set(mode="OBJECT")
    hidden = armature.data.collections.new("Driven by expressions")
    hidden.is_visible = False
    for bone in armature.data.bones:
        if bone.name.endswith(DRIVE_SUFFIX):
            hidden.assign(bone)
    armature.show_in_front = True
    for other in bpy.context.selected_objects:
        other.select_set(False)
    for other in selected:
        other.select_set(True)
    layer.objects.active = active
    return armature


def _bone_tail(head: HeadArrays, joint: str, index: int, centres: np.ndarray) -> np.ndarray:
    """Where an animator expects the tip: the neck up into the skull, the jaw to the chin, an eye along its gaze."""
    size = float(np.ptp(head.vertices, axis=0).max())
    forward, up = np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0])
    if joint.startswith("eye"):
        return centres[index] + 0.12 * size * forward
    if joint == "jaw":
        return centres[index] + 0.3 * size * (0.85 * forward - 0.5 * up)
    return centres[index] + (0.25 if joint == "neck" else 0.12) * size * up


def _is_driven(head: HeadArrays, joint: int) -> bool:
    return bool(np.abs(head.controls.to_joints[:, joint]).max() > 0)


def _skin(head: HeadArrays, mesh: bpy.types.Object, armature: bpy.types.Object) -> None:
    for index, joint in enumerate(head.joint_names):
        group = mesh.vertex_groups.new(name=joint)
        weights = head.skin_weights[:, index]
        # One call per distinct weight: most vertices share 0 or 1
        used = np.flatnonzero(weights)
        values, place = np.unique(weights[used], return_inverse=True)
        order = np.argsort(place, kind="stable")
        for value, rows in zip(values, np.split(used[order], np.cumsum(np.bincount(place))[:-1]), strict=True):
            group.add(rows.tolist(), float(value), "REPLACE")
    mesh.parent = armature
    modifier = mesh.modifiers.new("Armature", "ARMATURE")
    modifier.object = armature


def _drive_joints(head: HeadArrays, mesh: bpy.types.Object, armature: bpy.types.Object) -> None:
    """Let expression keys turn joints (jawOpen the jaw, eyeLook* the eyes) beneath what the animator's bones add.

    A hidden bone takes the sliders' rotation; the animator's bone copies it before its own, and stays free to be keyed.
    """
    for index, joint in enumerate(head.joint_names):
        if not _is_driven(head, index):
            continue
        drive = armature.pose.bones[joint + DRIVE_SUFFIX]
        constraint = armature.pose.bones[joint].constraints.new("COPY_ROTATION")
        constraint.name = "Expressions"
        constraint.target, constraint.subtarget = armature, drive.name
        constraint.mix_mode = "BEFORE"
        constraint.target_space = constraint.owner_space = "LOCAL"
        to_bone = np.array(drive.bone.matrix_local.to_3x3()).T @ ENGINE_TO_BLENDER
        turns = {
            name: to_bone @ turn
            for name, turn in zip(head.controls.names, head.controls.to_joints[:, index], strict=True)
            if np.abs(turn).max() > 0
        }
        _drive_rotation_vector(drive, mesh, turns)


def _drive_rotation_vector(bone: bpy.types.PoseBone, mesh: bpy.types.Object, turns: dict[str, np.ndarray]) -> None:
    """Drive ``bone`` by the rotation vector sum(value of key * turn): axis-angle channels need no quaternion."""
    bone.rotation_mode = "AXIS_ANGLE"
    letters = [chr(ord("a") + i) for i in range(len(turns))]

    def component(axis: int) -> str:
        return "+".join(f"{turn[axis]:.6f}*{x}" for x, turn in zip(letters, turns.values(), strict=True)) or "0"

    parts = [component(axis) for axis in range(3)]
    expressions = ["sqrt(" + "+".join(f"({part})**2" for part in parts) + ")", *parts]
    for channel, expression in enumerate(expressions):
        curve = bone.driver_add("rotation_axis_angle", channel)
        curve.driver.expression = expression
        for letter, key in zip(letters, turns, strict=True):
            variable = curve.driver.variables.new()
            variable.name = letter
            variable.targets[0].id_type = "KEY"
            variable.targets[0].id = mesh.data.shape_keys
            variable.targets[0].data_path = f'key_blocks["{key}"].value'


def _drive_correctives(head: HeadArrays, mesh: bpy.types.Object, armature: bpy.types.Object) -> None:
    """Pose correctives (FLAME's posedirs: linear in R - I of each joint) as shape keys driven by the bones."""
    for joint in range(1, len(head.joint_names)):
        bone = armature.data.bones[head.joint_names[joint]]
        # R in engine axes is  to_bone^T  R(bone's local rotation)  to_bone
        to_bone = np.array(bone.matrix_local.to_3x3()).T @ ENGINE_TO_BLENDER
        for entry in range(9):
            delta = head.pose_correctives[9 * (joint - 1) + entry]
            if np.abs(delta).max() < 1e-7:
                continue
            row, column = divmod(entry, 3)
            key = _add_key(mesh, head, f"{CORRECTIVE_PREFIX}{bone.name} {row}{column}", delta, -2.0)
            form = _rotation_form(to_bone[:, row], to_bone[:, column]) - np.eye(4) * (row == column)
            driver = key.driver_add("value").driver
            driver.expression = _quadratic(form)
            for letter, channel in zip("wxyz", ("ROT_W", "ROT_X", "ROT_Y", "ROT_Z"), strict=True):
                variable = driver.variables.new()
                variable.name, variable.type = letter, "TRANSFORMS"
                target = variable.targets[0]
                target.id, target.bone_target = armature, bone.name
                # Local space holds the constraints' part too, so a driven jaw is corrected like a keyed one
                target.transform_type, target.transform_space = channel, "LOCAL_SPACE"
                target.rotation_mode = "QUATERNION"


def _rotation_form(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The symmetric form Q with  left^T R(q) right = q^T Q q  for unit quaternions q = (w, x, y, z)."""
    form = np.zeros((4, 4))
    basis = np.eye(4)
    for i in range(4):
        for j in range(4):
            # Polarisation of the homogeneous quadratic R(q)
            pair = _rotation(basis[i] + basis[j]) - _rotation(basis[i]) - _rotation(basis[j])
            form[i, j] = 0.5 * left @ pair @ right
    return form


def _rotation(q: np.ndarray) -> np.ndarray:
    """R(q) without dividing by |q|^2: homogeneous of degree two."""
    w, x, y, z = q
    return np.array(
        [
            [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
        ]
    )


def _quadratic(form: np.ndarray) -> str:
    """A driver expression within Blender's 255 characters; plain arithmetic is evaluated without Python."""
    terms = []
    for i in range(4):
        for j in range(i, 4):
            weight = form[i, j] * (1 if i == j else 2)
            if abs(weight) > 1e-7:
                terms.append(f"{weight:+.6f}*{'wxyz'[i]}*{'wxyz'[j]}")
    return "".join(terms) or "0"
