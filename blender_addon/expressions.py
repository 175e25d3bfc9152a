"""The Expressions panel: the avatar's shape keys as grouped sliders, presets, mirror, reset, and keying."""

from __future__ import annotations

import bpy

from ..engine.heads.expressions import PRESETS, mirrored
from .rig import CORRECTIVE_PREFIX, DRIVE_SUFFIX

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


def group_of(name: str) -> str:
    return next(group for group, prefixes in GROUPS if name.startswith(prefixes))


class AvatarOperator:
    """Shared by the operators that change an avatar's pose: one undo step, auto-key respected."""

    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return avatar_mesh(context) is not None

    def finish(self, context: bpy.types.Context, mesh: bpy.types.Object, changed: list[bpy.types.ShapeKey]) -> set[str]:
        if context.scene.tool_settings.use_keyframe_insert_auto:
            for key in changed:
                key.keyframe_insert("value", frame=context.scene.frame_current)
        mesh.data.update()
        return {"FINISHED"}


class HEADSTUDIO_OT_apply_preset(AvatarOperator, bpy.types.Operator):
    """Set the sliders to a named expression; those that it does not name go to rest"""

    bl_idname = "headstudio.apply_preset"
    bl_label = "Expression Preset"

    preset: bpy.props.EnumProperty(name="Preset", items=[(name, name.capitalize(), "") for name in PRESETS])
    strength: bpy.props.FloatProperty(name="Strength", default=1.0, min=0.0, max=1.5, soft_max=1.0)

    def execute(self, context: bpy.types.Context) -> set[str]:
        mesh = avatar_mesh(context)
        values = PRESETS[self.preset]
        keys = sliders(mesh)
        for key in keys:
            key.value = self.strength * values.get(key.name, 0.0)
        return self.finish(context, mesh, keys)


class HEADSTUDIO_OT_mirror_expression(AvatarOperator, bpy.types.Operator):
    """Swap the sliders of the left and the right side"""

    bl_idname = "headstudio.mirror_expression"
    bl_label = "Mirror"

    def execute(self, context: bpy.types.Context) -> set[str]:
        mesh = avatar_mesh(context)
        keys = {key.name: key for key in sliders(mesh)}
        before = {name: key.value for name, key in keys.items()}
        for name, key in keys.items():
            key.value = before.get(mirrored(name), before[name])
        return self.finish(context, mesh, list(keys.values()))


class HEADSTUDIO_OT_reset_expression(AvatarOperator, bpy.types.Operator):
    """Put every slider and bone to rest"""

    bl_idname = "headstudio.reset_expression"
    bl_label = "Reset"

    def execute(self, context: bpy.types.Context) -> set[str]:
        mesh = avatar_mesh(context)
        keys = sliders(mesh)
        for key in keys:
            key.value = 0.0
        for bone in animated_bones(mesh):
            bone.matrix_basis.identity()
        return self.finish(context, mesh, keys)


class HEADSTUDIO_OT_key_expression(AvatarOperator, bpy.types.Operator):
    """Insert keyframes for the whole pose: every slider and every bone"""

    bl_idname = "headstudio.key_expression"
    bl_label = "Key Expression"

    only_changed: bpy.props.BoolProperty(
        name="Only Changed", description="Leave out what is at rest and has no keyframe yet"
    )

    def execute(self, context: bpy.types.Context) -> set[str]:
        mesh, frame = avatar_mesh(context), context.scene.frame_current
        keyed = _keyed_paths(mesh.data.shape_keys)
        for key in sliders(mesh):
            if not self.only_changed or key.value or key.path_from_id("value") in keyed:
                key.keyframe_insert("value", frame=frame)
        for bone in animated_bones(mesh):
            channel = {"QUATERNION": "rotation_quaternion", "AXIS_ANGLE": "rotation_axis_angle"}.get(
                bone.rotation_mode, "rotation_euler"
            )
            bone.keyframe_insert(channel, frame=frame, group=bone.name)
        return {"FINISHED"}


def animated_bones(mesh: bpy.types.Object) -> list[bpy.types.PoseBone]:
    """The bones that an animator turns."""
    armature = mesh.parent
    if armature is None or armature.type != "ARMATURE":
        return []
    return [bone for bone in armature.pose.bones if not bone.name.endswith(DRIVE_SUFFIX)]


def _keyed_paths(holder: bpy.types.ID) -> set[str]:
    """Data paths that have keyframes, in layered actions (4.4 and later)."""
    data = holder.animation_data
    if data is None or data.action is None or data.action_slot is None:
        return set()
    bags = [strip.channelbag(data.action_slot) for layer in data.action.layers for strip in layer.strips]
    return {curve.data_path for bag in bags if bag is not None for curve in bag.fcurves}


class HEADSTUDIO_PT_expressions(bpy.types.Panel):
    bl_label = "Expressions"
    bl_category = "HeadStudio"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return avatar_mesh(context) is not None

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator_menu_enum(HEADSTUDIO_OT_apply_preset.bl_idname, "preset", text="Presets", icon="PRESET")
        row = layout.row(align=True)
        row.operator(HEADSTUDIO_OT_mirror_expression.bl_idname, icon="MOD_MIRROR")
        row.operator(HEADSTUDIO_OT_reset_expression.bl_idname, icon="LOOP_BACK")
        layout.operator(HEADSTUDIO_OT_key_expression.bl_idname, icon="KEY_HLT")
        layout.prop(context.scene.headstudio, "search", text="", icon="VIEWZOOM")
        wanted = context.scene.headstudio.search.lower()
        groups: dict[str, list[bpy.types.ShapeKey]] = {}
        for key in sliders(avatar_mesh(context)):
            if wanted in key.name.lower():
                groups.setdefault(group_of(key.name), []).append(key)
        for name, _ in GROUPS:
            if name not in groups:
                continue
            header, body = layout.panel(f"headstudio_{name}", default_closed=name not in {"Jaw", "Mouth"})
            header.label(text=name)
            if body is None:
                continue
            column = body.column(align=True)
            for key in groups[name]:
                column.prop(key, "value", text=key.name, slider=True)
