"""The render engine's own settings, kept in the scene."""

from __future__ import annotations

import bpy

GPU, CPU = "GPU", "CPU"


class HeadStudioRenderSettings(bpy.types.PropertyGroup):
    device: bpy.props.EnumProperty(
        name="Device",
        items=(
            (GPU, "GPU", "Draw with the graphics card, or with Mesa's software OpenGL"),
            (CPU, "CPU (engine)", "Draw in the HeadStudio engine's own process. Needs the engine, and no GPU"),
        ),
        description="What draws the splats. There is no changing over by itself: a device that fails says why",
    )
    edge_samples: bpy.props.IntProperty(
        name="Edge Samples",
        default=8,
        min=1,
        max=64,
        description="Pictures over which the edges of surfaces that hide splats are averaged. 1: hard edges",
    )
    main: bpy.props.PointerProperty(
        name="Main Scene",
        type=bpy.types.Scene,
        description="The scene into whose picture this one's splats go: camera, border and pixels are that scene's",
    )
