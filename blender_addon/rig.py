"""An avatar's head as an ordinary rig: a mesh with shape keys, an armature, skin weights and driven correctives.

Blender's world has z up and a character faces -y; the engine's has y up and faces +z. Both have the subject's left at
+x, so the rig is the engine's head turned by a quarter about x.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import bpy
import numpy as np

from .rig_arrays import ENGINE_TO_BLENDER, RigArrays, ShapeKey

if TYPE_CHECKING:
    from ..engine.heads.arrays import HeadArrays

DRIVE_SUFFIX = "_expression"  # the hidden bone that carries what sliders such as jawOpen add to a joint
SMALLEST_TURN = 1e-6  # radians at a slider's full value that are worth a term
# A driver's expression has at most 255 characters: sliders that fit into a rotation's length, and into a sum
MOST_DIRECT, MOST_SUMMED = 6, 16


@dataclass(frozen=True)
class Rig:
    """What ``build_rig`` made; both objects lie in ``collection``."""

    collection: bpy.types.Collection
    mesh: bpy.types.Object
    armature: bpy.types.Object


def build_rig(arrays: RigArrays, name: str, parent: bpy.types.Collection) -> Rig:
    """Make the rig in a new collection under ``parent``. Mode, active object and selection stay as they are.

    If that fails, whatever the reason, nothing of it stays in the file.
    """
    with all_or_nothing() as made:
        collection = bpy.data.collections.new(name)
        made.append(collection)
        armature = bpy.data.objects.new(f"{name} rig", bpy.data.armatures.new(f"{name} rig"))
        made += [armature.data, armature]
        _make_armature(arrays, armature)
        data = head_mesh(arrays.points, arrays.corner_vertex, name)
        made.append(data)
        mesh = bpy.data.objects.new(name, data)
        made.append(mesh)
        data.uv_layers.new(name="UVMap").uv.foreach_set("vector", arrays.uv)
        mesh.shape_key_add(name="Basis", from_mix=False).value = 0.0  # Blender 5 creates keys at 1
        for key in arrays.keys:
            _add_key(mesh, key)
        _skin(arrays, mesh, armature)
        _drive_joints(arrays.head, mesh, armature)
        _drive_correctives(arrays, mesh, armature)
        # Not before: every change to what a scene shows is a change to all that depends on it
        collection.objects.link(armature)
        collection.objects.link(mesh)
        parent.children.link(collection)
    return Rig(collection, mesh, armature)


@contextlib.contextmanager
def all_or_nothing() -> Iterator[list[bpy.types.ID]]:
    """What is appended to the list leaves the file again if the block raises."""
    made: list[bpy.types.ID] = []
    try:
        yield made
    except BaseException:
        bpy.data.batch_remove(made)
        raise


def head_mesh(
    points: np.ndarray,  # [3 N] float32 metres, Blender's axes
    corner_vertex: np.ndarray,  # [3 M] int32
    name: str,
) -> bpy.types.Mesh:
    """A head's smooth triangles as a new data-block, its faces in the head's order.

    By attributes: ``foreach_set`` of vertices, loops and keys' data converts each element, thirty times slower.
    """
    data = bpy.data.meshes.new(name)
    data.vertices.add(len(points) // 3)
    data.attributes["position"].data.foreach_set("vector", points)
    data.loops.add(len(corner_vertex))
    data.attributes[".corner_vert"].data.foreach_set("value", corner_vertex)
    data.polygons.add(len(corner_vertex) // 3)
    data.polygons.foreach_set("loop_start", np.arange(0, len(corner_vertex), 3, dtype=np.int32))
    data.update(calc_edges=True)
    data.shade_smooth()
    return data


def _add_key(mesh: bpy.types.Object, key: ShapeKey) -> bpy.types.ShapeKey:
    added = mesh.shape_key_add(name=key.name, from_mix=False)
    added.slider_min, added.slider_max = key.lowest, 1.0
    added.value = 0.0
    added.points.foreach_set("co", key.points)
    return added


def _make_armature(arrays: RigArrays, armature: bpy.types.Object) -> None:
    """Bones at the joints, each with its x axis to the subject's left: turning by +x nods, opens the jaw, looks down.

    Edit mode is the only way to make bones. It is entered in a scene of its own, so that whatever mode the artist is
    in stays as it is.
    """
    workshop = bpy.data.scenes.new("HeadStudio")
    try:
        workshop.collection.objects.link(armature)
        layer = workshop.view_layers[0]
        layer.objects.active = armature
        with bpy.context.temp_override(scene=workshop, view_layer=layer, object=armature, active_object=armature):
            bpy.ops.object.mode_set(mode="EDIT")
            _make_bones(arrays, armature.data.edit_bones)
            bpy.ops.object.mode_set(mode="OBJECT")
    finally:
        bpy.data.scenes.remove(workshop)
    hidden = armature.data.collections.new("Driven by expressions")
    hidden.is_visible = False
    for bone in armature.data.bones:
        if bone.name.endswith(DRIVE_SUFFIX):
            hidden.assign(bone)
    for bone in armature.pose.bones:
        # Joints turn; only the root carries the head about
        bone.lock_location = bone.lock_scale = (bone.parent is not None,) * 3
        if bone.name.endswith(DRIVE_SUFFIX):
            bone.lock_rotation = (True,) * 3
    armature.show_in_front = True


def _make_bones(arrays: RigArrays, bones: bpy.types.ArmatureEditBones) -> None:
    head = arrays.head
    for index, (joint, start, tip) in enumerate(zip(head.joint_names, arrays.joints, arrays.tips, strict=True)):
        for suffix in ("", DRIVE_SUFFIX) if _is_driven(head, index) else ("",):
            bone = bones.new(joint + suffix)
            bone.head, bone.tail = start, tip
            bone.align_roll(np.cross([1.0, 0.0, 0.0], tip - start))
            parent = head.parents[index]
            if parent >= 0:
                bone.parent = bones[head.joint_names[parent]]
            bone.use_deform = not suffix


def _is_driven(head: HeadArrays, joint: int) -> bool:
    return bool(np.abs(head.controls.to_joints[:, joint]).max() > SMALLEST_TURN)


def _skin(arrays: RigArrays, mesh: bpy.types.Object, armature: bpy.types.Object) -> None:
    for joint, shares in zip(arrays.head.joint_names, arrays.weights, strict=True):
        group = mesh.vertex_groups.new(name=joint)
        for vertices, weight in shares:
            group.add(vertices, weight, "REPLACE")
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
            if np.abs(turn).max() > SMALLEST_TURN
        }
        _drive_rotation_vector(drive, mesh, turns)


def _drive_rotation_vector(bone: bpy.types.PoseBone, mesh: bpy.types.Object, turns: dict[str, np.ndarray]) -> None:
    """Drive ``bone`` by the rotation vector sum(value of key * turn): axis-angle channels need no quaternion.

    Every expression is plain arithmetic, which Blender evaluates without Python, even where a file may not run scripts.
    """
    bone.rotation_mode = "AXIS_ANGLE"
    variables = {f"s{i}": (mesh.data.shape_keys, f'key_blocks["{key}"].value') for i, key in enumerate(turns)}
    components = [_weighted(variables, [turn[axis] for turn in turns.values()]) for axis in range(3)]
    if len(turns) > MOST_DIRECT:
        variables, components = _partial_sums(bone, variables, np.array(list(turns.values())))
    length = "sqrt(" + "+".join(f"pow({part},2)" for part in components) + ")"
    for channel, expression in enumerate([length, *components]):
        _drive(bone.driver_add("rotation_axis_angle", channel).driver, expression, variables)


def _partial_sums(bone: bpy.types.PoseBone, variables: dict, turns: np.ndarray) -> tuple[dict, list[str]]:
    """Sums over MOST_SUMMED sliders each as driven custom properties of the armature, for longer sums than fit.

    ``turns`` [S, 3] belong to ``variables``. Returns the sums as variables and the three components made of them.
    """
    armature = bone.id_data
    sums: dict[str, tuple[bpy.types.ID, str]] = {}
    components: list[list[str]] = [[], [], []]
    names = list(variables)
    for start in range(0, len(names), MOST_SUMMED):
        chosen = {name: variables[name] for name in names[start : start + MOST_SUMMED]}
        title = f"{bone.name} {start // MOST_SUMMED}"
        armature[title] = [0.0, 0.0, 0.0]
        for axis in range(3):
            expression = _weighted(chosen, turns[start : start + MOST_SUMMED, axis])
            _drive(armature.driver_add(f'["{title}"]', axis).driver, expression, chosen)
            letter = f"p{len(sums)}"
            sums[letter] = (armature, f'["{title}"][{axis}]')
            components[axis].append(letter)
    return sums, ["+".join(parts) for parts in components]


def _drive(driver: bpy.types.Driver, expression: str, variables: dict[str, tuple[bpy.types.ID, str]]) -> None:
    """Give ``driver`` its expression and, of ``variables`` (data-block and path), those that it names."""
    for name in dict.fromkeys(re.findall(r"[a-z]\d+", expression)):
        holder, path = variables[name]
        variable = driver.variables.new()
        variable.name = name
        target = variable.targets[0]
        target.id_type = holder.id_type
        target.id, target.data_path = holder, path
    driver.expression = expression


def _weighted(names: Iterable[str], weights: Iterable[float]) -> str:
    """The sum of weight * name, without what is nothing."""
    terms = [f"{weight:+.6f}*{name}" for name, weight in zip(names, weights, strict=True) if abs(weight) >= 1e-6]
    return "".join(terms) or "0"


def _drive_correctives(arrays: RigArrays, mesh: bpy.types.Object, armature: bpy.types.Object) -> None:
    """Let bones drive the shape keys of the pose correctives."""
    for (joint, entry), corrective in arrays.correctives.items():
        bone = armature.data.bones[arrays.head.joint_names[joint]]
        # R in engine axes is  to_bone^T  R(bone's local rotation)  to_bone
        to_bone = np.array(bone.matrix_local.to_3x3()).T @ ENGINE_TO_BLENDER
        row, column = divmod(entry, 3)
        key = _add_key(mesh, corrective)
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
