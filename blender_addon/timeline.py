"""Keying an avatar by hand: Key Expression, the keying set, and the Animation panel."""

from __future__ import annotations

import bpy

from . import expressions, keying
from .sidebar import AvatarPanel


class HEADSTUDIO_OT_key_expression(bpy.types.Operator):
    """Insert keyframes for the whole pose: every slider and every bone"""

    bl_idname = "headstudio.key_expression"
    bl_label = "Key Expression"
    bl_options = {"REGISTER", "UNDO"}

    only_changed: bpy.props.BoolProperty(
        name="Only Changed",
        description="Key what is not where the action puts it at this frame; without keyframes, what is not at rest",
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return expressions.can_be_posed(cls, context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        channels = expressions.channels(expressions.avatar_mesh(context))
        if self.only_changed:
            channels = keying.changed(channels, context.scene.frame_current_final)
        if not channels:
            self.report({"INFO"}, "Nothing has changed at this frame.")
            return {"CANCELLED"}
        count = keying.insert(context, channels)
        self.report({"INFO"}, f"Keyed {count} of the avatar's channels")
        return {"FINISHED"}


class HEADSTUDIO_OT_key_pair(bpy.types.Operator):
    """Insert keyframes for the left and the right slider"""

    bl_idname = "headstudio.key_pair"
    bl_label = "Key Left and Right"
    bl_options = {"REGISTER", "UNDO"}

    pair: bpy.props.StringProperty(options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return expressions.can_be_posed(cls, context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        keys = expressions.avatar_mesh(context).data.shape_keys.key_blocks
        names = [name for name in expressions.PAIRS.get(self.pair, ()) if name in keys]
        if not names:
            self.report({"ERROR"}, f"This avatar has no sliders for {self.pair!r}.")
            return {"CANCELLED"}
        keying.insert(context, [expressions.slider_channel(keys[name]) for name in names])
        return {"FINISHED"}


class HEADSTUDIO_KSI_expression(bpy.types.KeyingSetInfo):
    """Every slider and bone of the active avatar"""

    bl_idname = "HeadStudioExpression"
    bl_label = "HeadStudio Expression"

    def poll(self, context: bpy.types.Context) -> bool:
        return expressions.avatar_mesh(context) is not None

    def iterator(self, context: bpy.types.Context, keying_set: bpy.types.KeyingSet) -> None:
        self.generate(context, keying_set, expressions.avatar_mesh(context))

    def generate(self, _context: bpy.types.Context, keying_set: bpy.types.KeyingSet, mesh: bpy.types.Object) -> None:
        for channel in expressions.channels(mesh):
            keying_set.paths.add(channel.holder, channel.path, group_method="NAMED", group_name=channel.group)


class HEADSTUDIO_OT_use_keying_set(bpy.types.Operator):
    """Make the avatar's sliders and bones what the key I inserts"""

    bl_idname = "headstudio.use_keying_set"
    bl_label = "Use the Keying Set"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        sets = context.scene.keying_sets_all
        sets.active = next(item for item in sets if item.bl_idname == HEADSTUDIO_KSI_expression.bl_idname)
        return {"FINISHED"}


class HEADSTUDIO_PT_animation(AvatarPanel, bpy.types.Panel):
    bl_label = "Animation"
    bl_order = 2

    def draw(self, context: bpy.types.Context) -> None:
        layout, settings = self.layout, context.scene.tool_settings
        row = layout.row(align=True)
        row.operator(HEADSTUDIO_OT_key_expression.bl_idname, icon="KEY_HLT").only_changed = False
        row.operator(HEADSTUDIO_OT_key_expression.bl_idname, text="Only Changed").only_changed = True
        row = layout.row(align=True)
        row.operator("screen.keyframe_jump", text="", icon="PREV_KEYFRAME").next = False
        row.operator("screen.keyframe_jump", text="", icon="NEXT_KEYFRAME").next = True
        row.prop(settings, "use_keyframe_insert_auto", text="Auto Keying", icon="REC", toggle=True)
        active = context.scene.keying_sets_all.active
        if active is None or active.bl_idname != HEADSTUDIO_KSI_expression.bl_idname:
            layout.operator(HEADSTUDIO_OT_use_keying_set.bl_idname, icon="KEYINGSET")
        else:
            layout.prop(settings, "use_keyframe_insert_keyingset", text="Auto Keying keys only the keying set")


CLASSES = (
    HEADSTUDIO_OT_key_expression,
    HEADSTUDIO_OT_key_pair,
    HEADSTUDIO_KSI_expression,
    HEADSTUDIO_OT_use_keying_set,
    HEADSTUDIO_PT_animation,
)
