"""Blender's half of HeadStudio: everything that imports bpy. It needs numpy alone and never imports torch."""

from __future__ import annotations

import bpy

from . import (
    compositor,
    cpu_render,
    engine_panels,
    export_avatar,
    export_ply,
    expression_panel,
    expressions,
    framing,
    job_list,
    job_operators,
    job_picture,
    jobs,
    panel,
    render_panel,
    status_bar,
    timeline,
    viewport,
)
from .final_render import HeadStudioRender
from .import_avatar import HEADSTUDIO_FH_avatar, HEADSTUDIO_OT_import_avatar, menu_entry
from .preferences import HeadStudioPreferences
from .render_settings import HeadStudioRenderSettings
from .splat_data import HeadStudioMesh

CLASSES = (
    HeadStudioPreferences,
    HeadStudioMesh,
    HeadStudioRenderSettings,
    panel.HeadStudioScene,
    HEADSTUDIO_OT_import_avatar,
    HEADSTUDIO_FH_avatar,
    HeadStudioRender,
    engine_panels.HEADSTUDIO_PT_render,
    engine_panels.HEADSTUDIO_PT_passes,
    compositor.HEADSTUDIO_OT_combine,
    *job_operators.CLASSES,
    *framing.CLASSES,
    panel.HEADSTUDIO_OT_random_seed,
    panel.HEADSTUDIO_PT_create,
    *job_list.CLASSES,
    *expressions.CLASSES,
    *timeline.CLASSES,
    *expression_panel.CLASSES,
    export_ply.HEADSTUDIO_OT_export_ply,
    export_avatar.HEADSTUDIO_OT_export_avatar,
    render_panel.HEADSTUDIO_OT_use_engine,
    render_panel.HEADSTUDIO_PT_render_and_export,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Mesh.headstudio = bpy.props.PointerProperty(type=HeadStudioMesh)
    bpy.types.Scene.headstudio = bpy.props.PointerProperty(type=panel.HeadStudioScene)
    bpy.types.WindowManager.headstudio = bpy.props.PointerProperty(type=job_list.HeadStudioJobList)
    bpy.types.Scene.headstudio_render = bpy.props.PointerProperty(type=HeadStudioRenderSettings)
    expression_panel.register()
    bpy.types.TOPBAR_MT_file_import.append(menu_entry)
    bpy.types.TOPBAR_MT_file_export.append(export_ply.menu_entry)
    bpy.types.TOPBAR_MT_file_export.append(export_avatar.menu_entry)
    engine_panels.register()
    viewport.register()
    jobs.register()
    status_bar.register()


def unregister() -> None:
    cpu_render.stop()
    status_bar.unregister()
    jobs.unregister()
    job_picture.unregister()
    viewport.unregister()
    engine_panels.unregister()
    bpy.types.TOPBAR_MT_file_export.remove(export_avatar.menu_entry)
    bpy.types.TOPBAR_MT_file_export.remove(export_ply.menu_entry)
    bpy.types.TOPBAR_MT_file_import.remove(menu_entry)
    del bpy.types.Scene.headstudio_render
    expression_panel.unregister()
    del bpy.types.WindowManager.headstudio
    del bpy.types.Scene.headstudio
    del bpy.types.Mesh.headstudio
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
