"""How viewports show splats, and the panel Display. A final render always draws all of them."""

from __future__ import annotations

import textwrap

import bpy

from .expressions import avatar_mesh
from .framing import HEADSTUDIO_OT_frame_avatar
from .sidebar import SidebarPanel

WRAP = 38  # characters that fit in the sidebar, whose labels do not wrap by themselves


class HeadStudioDisplay(bpy.types.PropertyGroup):
    """What all viewports of a scene share."""

    style: bpy.props.EnumProperty(
        name="Show",
        items=(
            ("SPLATS", "Splats", "The avatar as it renders"),
            ("POINTS", "Points", "A square in the middle of each splat: where splats lie, and how many"),
        ),
    )
    budget: bpy.props.IntProperty(
        name="Budget",
        min=0,
        soft_max=200_000,
        step=1000,
        description="Draw so many splats at most, the most important ones, all avatars together. 0: all. "
        "Final renders draw all of them",
    )
    splat_scale: bpy.props.FloatProperty(
        name="Splat Scale",
        default=1.0,
        min=0.01,
        max=10.0,
        soft_min=0.1,
        soft_max=2.0,
        description="Size of splats in viewports",
    )
    point_size: bpy.props.FloatProperty(
        name="Point Size", default=3.0, min=1.0, max=50.0, subtype="PIXEL", description="Side of a point's square"
    )


class HEADSTUDIO_PT_display(SidebarPanel, bpy.types.Panel):
    bl_label = "Display"

    def draw(self, context: bpy.types.Context) -> None:
        from . import viewport

        layout, settings = self.layout, context.scene.headstudio_display
        for notice in viewport.notices(context):
            column = layout.column(align=True)
            column.alert = True
            for line in textwrap.wrap(notice, WRAP):
                column.label(text=line)
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(settings, "style", expand=True)
        points = settings.style == "POINTS"
        layout.prop(settings, "point_size" if points else "splat_scale")
        layout.prop(settings, "budget")
        layout.operator(HEADSTUDIO_OT_frame_avatar.bl_idname, icon="ZOOM_SELECTED")
        mesh = avatar_mesh(context)
        if mesh is not None:
            layout.prop(mesh, "display_type", text="Mesh As")


CLASSES = (HeadStudioDisplay, HEADSTUDIO_PT_display)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.headstudio_display = bpy.props.PointerProperty(type=HeadStudioDisplay)


def unregister() -> None:
    del bpy.types.Scene.headstudio_display
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
