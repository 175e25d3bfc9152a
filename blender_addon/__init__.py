"""Blender's half of HeadStudio: everything that imports bpy. It needs numpy alone and never imports torch."""

from __future__ import annotations

import bpy

from . import jobs, panel, viewport
from .final_render import HeadStudioRender
from .import_avatar import HEADSTUDIO_FH_avatar, HEADSTUDIO_OT_import_avatar, menu_entry
from .preferences import HeadStudioPreferences
from .splat_data import HeadStudioMesh

CLASSES = (
    HeadStudioPreferences,
    HeadStudioMesh,
    panel.HeadStudioScene,
    HEADSTUDIO_OT_import_avatar,
    HEADSTUDIO_FH_avatar,
    HeadStudioRender,
    panel.HEADSTUDIO_OT_generate,
    panel.HEADSTUDIO_OT_cancel,
    panel.HEADSTUDIO_OT_resume,
    panel.HEADSTUDIO_OT_random_seed,
    panel.HEADSTUDIO_PT_create,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Mesh.headstudio = bpy.props.PointerProperty(type=HeadStudioMesh)
    bpy.types.Scene.headstudio = bpy.props.PointerProperty(type=panel.HeadStudioScene)
    bpy.types.TOPBAR_MT_file_import.append(menu_entry)
    viewport.register()


def unregister() -> None:
    jobs.unregister()
    viewport.unregister()
    bpy.types.TOPBAR_MT_file_import.remove(menu_entry)
    del bpy.types.Scene.headstudio
    del bpy.types.Mesh.headstudio
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
