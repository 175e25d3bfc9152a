"""Blender's own panels while the render engine is HEADSTUDIO: resolution, output, colour management, lens, shape keys.

Blender shows them for the engines that they name, so an engine of an add-on has to put its name on the list.
"""

from __future__ import annotations

from collections.abc import Iterator

import bpy

from .final_render import HeadStudioRender

EVERY_ENGINE = "BLENDER_RENDER"  # what panels carry that any engine may show
# What this engine does not have
LEFT_OUT = ("freestyle", "stereoscopy", "gpencil", "grease_pencil")


def register() -> None:
    for engines in _engines_of_panels():
        engines.add(HeadStudioRender.bl_idname)


def unregister() -> None:
    for engines in _engines_of_panels():
        engines.discard(HeadStudioRender.bl_idname)


def _engines_of_panels() -> Iterator[set[str]]:
    for panel in bpy.types.Panel.__subclasses__():
        engines = getattr(panel, "COMPAT_ENGINES", set())
        if EVERY_ENGINE in engines and not any(word in panel.__name__.lower() for word in LEFT_OUT):
            yield engines


class HeadStudioEnginePanel:
    """Shown while the engine is HEADSTUDIO."""

    bl_space_type = "PROPERTIES"
    bl_region_type = "WINDOW"
    COMPAT_ENGINES = {HeadStudioRender.bl_idname}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.engine in cls.COMPAT_ENGINES


class HEADSTUDIO_PT_render(HeadStudioEnginePanel, bpy.types.Panel):
    bl_label = "HeadStudio"
    bl_context = "render"

    def draw(self, context: bpy.types.Context) -> None:
        layout, settings = self.layout, context.scene.headstudio_render
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(settings, "device")
        layout.prop(settings, "edge_samples")
        layout.prop(context.scene.render, "film_transparent")


class HEADSTUDIO_PT_passes(HeadStudioEnginePanel, bpy.types.Panel):
    bl_label = "Passes"
    bl_context = "view_layer"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(context.view_layer, "use_pass_z", text="Depth")
