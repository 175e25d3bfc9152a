"""The sidebar's panel Render and Export."""

from __future__ import annotations

import bpy

from .compositor import HEADSTUDIO_OT_combine
from .export_avatar import HEADSTUDIO_OT_export_avatar
from .export_ply import HEADSTUDIO_OT_export_ply
from .final_render import HeadStudioRender
from .sidebar import AvatarPanel


class HEADSTUDIO_OT_use_engine(bpy.types.Operator):
    """Render this scene with HeadStudio: splats alone, other objects hide them and are transparent.
    The view transform becomes Standard, which shows splats in the colours that they were made in"""

    bl_idname = "headstudio.use_engine"
    bl_label = "Render with HeadStudio"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.scene.render.engine = HeadStudioRender.bl_idname
        context.scene.view_settings.view_transform = "Standard"
        return {"FINISHED"}


class HEADSTUDIO_PT_render_and_export(AvatarPanel, bpy.types.Panel):
    bl_label = "Render and Export"
    bl_options = {"DEFAULT_CLOSED"}
    bl_order = 30

    def draw(self, context: bpy.types.Context) -> None:
        layout, scene = self.layout, context.scene
        column = layout.column(align=True)
        if scene.render.engine == HeadStudioRender.bl_idname:
            column.operator("render.render", icon="RENDER_STILL")
            column.operator("render.render", text="Render Animation", icon="RENDER_ANIMATION").animation = True
            settings = layout.column()
            settings.use_property_split = True
            settings.use_property_decorate = False
            settings.prop(scene.headstudio_render, "device")
            settings.prop(scene.render, "film_transparent")
        else:
            column.operator(HEADSTUDIO_OT_use_engine.bl_idname, icon="SCENE")
            column.operator(HEADSTUDIO_OT_combine.bl_idname, icon="NODE_COMPOSITING")
        # The file browser has each export's settings
        layout.operator_context = "INVOKE_DEFAULT"
        column = layout.column(align=True)
        column.operator(HEADSTUDIO_OT_export_ply.bl_idname, text="Export Splats (.ply)", icon="EXPORT")
        column.operator(HEADSTUDIO_OT_export_avatar.bl_idname, text="Export Avatar", icon="EXPORT")
