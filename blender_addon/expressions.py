"""An avatar's expression: its sliders by group, left and right, its bones, and the operators that set them whole."""

from __future__ import annotations

from typing import Any

import bpy
from mathutils import Matrix

from ..engine.errors import UserError
from ..engine.heads.expressions import MIRRORED, mirrored
from . import keying, user_presets
from .rig import DRIVE_SUFFIX
from .rig_arrays import CORRECTIVE_PREFIX

# First match wins
GROUPS = (
    ("Brows", ("brow",)),
    ("Gaze", ("eyeLook",)),
    ("Eyes", ("eye",)),
    ("Jaw", ("jaw",)),
    ("Mouth", ("mouth",)),
    ("Cheeks and Nose", ("cheek", "nose")),
    ("Tongue", ("tongue",)),
    ("Other", ("",)),
)

# What moves together where left and right are linked. Both eyes look the same way: in on one side is out on the other.
PAIRS: dict[str, tuple[str, str]] = {
    "eyeLookUp": ("eyeLookUpLeft", "eyeLookUpRight"),
    "eyeLookDown": ("eyeLookDownLeft", "eyeLookDownRight"),
    "eyeLookLeft": ("eyeLookOutLeft", "eyeLookInRight"),
    "eyeLookRight": ("eyeLookInLeft", "eyeLookOutRight"),
    **{
        left.removesuffix("Left"): (left, right)
        for left, right in MIRRORED
        # These two name a direction, not a side
        if not left.startswith("eyeLook") and left not in ("jawLeft", "mouthLeft")
    },
}


def avatar_mesh(context: bpy.types.Context) -> bpy.types.Object | None:
    """The head mesh of the avatar that the active object belongs to."""
    item = context.object
    if item is None:
        return None
    root = item.parent if item.type == "MESH" and item.parent is not None else item
    for candidate in (item, *root.children_recursive):
        if candidate.type == "MESH" and candidate.data.headstudio.splats is not None:
            return candidate
    return None


def sliders(mesh: bpy.types.Object) -> list[bpy.types.ShapeKey]:
    """The keys that an animator moves: neither the basis nor the driven correctives."""
    keys = mesh.data.shape_keys
    if keys is None:
        return []
    return [key for key in keys.key_blocks if key != keys.reference_key and not key.name.startswith(CORRECTIVE_PREFIX)]


def animated_bones(mesh: bpy.types.Object) -> list[bpy.types.PoseBone]:
    """The bones that an animator turns."""
    armature = mesh.parent
    if armature is None or armature.type != "ARMATURE":
        return []
    return [bone for bone in armature.pose.bones if not bone.name.endswith(DRIVE_SUFFIX)]


def group_of(name: str) -> str:
    """The group of :data:`GROUPS` that a slider or a pair belongs to."""
    return next(group for group, prefixes in GROUPS if name.startswith(prefixes))


def channels(mesh: bpy.types.Object) -> list[keying.Channel]:
    """Everything that makes up the pose: the sliders' values, and what the bones' locks leave free."""
    found = [slider_channel(key) for key in sliders(mesh)]
    for bone in animated_bones(mesh):
        turn = {"QUATERNION": "rotation_quaternion", "AXIS_ANGLE": "rotation_axis_angle"}.get(
            bone.rotation_mode, "rotation_euler"
        )
        for name, locks in (("location", bone.lock_location), (turn, bone.lock_rotation), ("scale", bone.lock_scale)):
            if not all(locks):
                found.append(keying.Channel(bone.id_data, bone.path_from_id(name), bone.name, rest_of(name)))
    return found


def slider_channel(key: bpy.types.ShapeKey) -> keying.Channel:
    return keying.Channel(key.id_data, key.path_from_id("value"), group_of(key.name), (0.0,))


def rest_of(name: str) -> tuple[float, ...]:
    """The value of a bone's transform property at rest."""
    return {
        "rotation_quaternion": (1.0, 0.0, 0.0, 0.0),
        "rotation_axis_angle": (0.0, 0.0, 1.0, 0.0),
        "scale": (1.0, 1.0, 1.0),
    }.get(name, (0.0, 0.0, 0.0))


def can_be_posed(operator: Any, context: bpy.types.Context) -> bool:
    """For ``poll`` of the class ``operator``, which is told why if an avatar is active but must not be changed."""
    mesh = avatar_mesh(context)
    if mesh is None:
        return False
    if mesh.data.shape_keys is None or mesh.data.shape_keys.is_editable:
        return True
    operator.poll_message_set("This avatar is linked from another file: make a library override of it first")
    return False


class AvatarOperator:
    """Shared by the operators that change an avatar's pose: one undo step, auto-key respected."""

    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return can_be_posed(cls, context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        mesh = avatar_mesh(context)
        before = keying.values(channels(mesh))
        try:
            self.change(mesh)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        after = keying.values(channels(mesh))
        keying.auto_key(context, [channel for channel, value in after.items() if before.get(channel) != value])
        mesh.data.update()
        return {"FINISHED"}

    def change(self, mesh: bpy.types.Object) -> None:
        """Set sliders and bones. Raises ``UserError`` before anything was changed."""
        raise NotImplementedError


class HEADSTUDIO_OT_apply_preset(AvatarOperator, bpy.types.Operator):
    """Set the sliders to a named expression"""

    bl_idname = "headstudio.apply_preset"
    bl_label = "Expression Preset"

    preset: bpy.props.StringProperty(
        name="Preset",
        description="Name of a built-in preset or of one of yours",
        search=lambda _self, _context, text: [name for name in user_presets.names() if text.lower() in name.lower()],
    )
    strength: bpy.props.FloatProperty(
        name="Strength", description="What the preset's values are multiplied by", default=1.0, min=0.0, max=2.0
    )
    add: bpy.props.BoolProperty(
        name="Add", description="Add to the present expression. Off: sliders that the preset does not name go to rest"
    )

    def change(self, mesh: bpy.types.Object) -> None:
        values = user_presets.load(self.preset)
        for key in sliders(mesh):
            key.value = (key.value if self.add else 0.0) + self.strength * values.get(key.name, 0.0)


class HEADSTUDIO_OT_mirror_expression(AvatarOperator, bpy.types.Operator):
    """Swap left and right: of the sliders, and of how the bones are turned"""

    bl_idname = "headstudio.mirror_expression"
    bl_label = "Mirror"

    def change(self, mesh: bpy.types.Object) -> None:
        before = {key.name: key.value for key in sliders(mesh)}
        for key in sliders(mesh):
            key.value = before.get(mirrored(key.name), before[key.name])
        flip = Matrix.Diagonal((-1.0, 1.0, 1.0, 1.0))
        bones = {bone.name: bone for bone in animated_bones(mesh)}
        # What a pose adds to the rest, seen in the armature's axes, where the mirror is x = 0
        poses = {
            name: bone.bone.matrix_local @ bone.matrix_basis @ bone.bone.matrix_local.inverted()
            for name, bone in bones.items()
        }
        for name, bone in bones.items():
            pose = flip @ poses.get(_other_side(name), poses[name]) @ flip
            bone.matrix_basis = bone.bone.matrix_local.inverted() @ pose @ bone.bone.matrix_local


def _other_side(bone: str) -> str:
    return bone.replace("left", "right") if "left" in bone else bone.replace("right", "left")


class HEADSTUDIO_OT_reset_expression(AvatarOperator, bpy.types.Operator):
    """Put the sliders and the bones to rest"""

    bl_idname = "headstudio.reset_expression"
    bl_label = "Reset"

    bones: bpy.props.BoolProperty(name="Bones", description="The bones too, not only the sliders", default=True)

    def change(self, mesh: bpy.types.Object) -> None:
        for key in sliders(mesh):
            key.value = 0.0
        for bone in animated_bones(mesh) if self.bones else ():
            bone.matrix_basis.identity()


CLASSES = (HEADSTUDIO_OT_apply_preset, HEADSTUDIO_OT_mirror_expression, HEADSTUDIO_OT_reset_expression)
