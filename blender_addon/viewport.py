"""Splats in every 3D viewport, in every shading mode, following the evaluated mesh.

Each view is drawn into a picture of its own, in display-referred sRGB as the avatar was trained, hidden by the
viewport's depth, and then laid over the viewport, whose framebuffer takes scene-linear colour.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from functools import cache

import bpy
import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader

from . import display_settings
from .scene_avatars import SceneAvatars
from .view_rectangle import Rectangle, border_rectangle, covered_rectangle

SCENES = 4  # view layers whose avatars stay on the GPU
SIZES = 8  # sizes of viewports whose pictures are kept

_COMPOSITE = """
void main() {
  vec4 c = texelFetch(picture, ivec2(gl_FragCoord.xy), 0);
  vec3 shown = c.rgb / max(c.a, 1e-6);
  vec3 linear = mix(shown / 12.92, pow((shown + 0.055) / 1.055, vec3(2.4)), step(0.04045, shown));
  result = vec4(linear * c.a, c.a);
}
"""


@dataclass
class _Viewports:
    """All that this module keeps while the extension is enabled."""

    handle: object | None = None
    scenes: dict[tuple[int, str], SceneAvatars] = field(default_factory=dict)  # by scene and view layer
    offscreens: dict[tuple[int, int], gpu.types.GPUOffScreen] = field(default_factory=dict)
    failure: str = ""


_state = _Viewports()


def register() -> None:
    display_settings.register()
    _state.handle = bpy.types.SpaceView3D.draw_handler_add(_draw_safely, (), "WINDOW", "POST_VIEW")
    bpy.app.handlers.load_pre.append(_on_load)


def unregister() -> None:
    bpy.types.SpaceView3D.draw_handler_remove(_state.handle, "WINDOW")
    bpy.app.handlers.load_pre.remove(_on_load)
    if bpy.app.timers.is_registered(_redraw_panels):
        bpy.app.timers.unregister(_redraw_panels)
    _clear()
    display_settings.unregister()


def notices(context: bpy.types.Context) -> list[str]:
    """Sentences on what the viewports of ``context`` do not draw, and why."""
    avatars = _state.scenes.get(_key(context))
    found = list(avatars.notices.values()) if avatars is not None else []
    return [_state.failure, *found] if _state.failure else found


def _clear() -> None:
    _state.scenes.clear()
    for offscreen in _state.offscreens.values():
        offscreen.free()
    _state.offscreens.clear()
    _state.failure = ""


@bpy.app.handlers.persistent
def _on_load(*_) -> None:
    _clear()


def _key(context: bpy.types.Context) -> tuple[int, str]:
    return context.scene.session_uid, context.view_layer.name


def _draw_safely() -> None:
    """A fault in drawing must neither flood the console nor stop Blender's own drawing."""
    if _state.failure:
        return
    context = bpy.context
    before = notices(context)
    try:
        _draw(context)
    except Exception as error:
        _state.failure = f"Splats can no longer be drawn ({error}). Open the file again to try once more."
        traceback.print_exc()
    finally:
        gpu.state.blend_set("NONE")
        gpu.state.depth_test_set("NONE")
    # Blender forgets what is tagged while it draws
    if notices(context) != before and not bpy.app.timers.is_registered(_redraw_panels):
        bpy.app.timers.register(_redraw_panels, first_interval=0.0)


def _redraw_panels() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                for region in area.regions:
                    if region.type == "UI":
                        region.tag_redraw()


def _draw(context: bpy.types.Context) -> None:
    space, settings = context.space_data, context.scene.headstudio_display
    avatars = _avatars(context)
    avatars.update(context.evaluated_depsgraph_get(), settings.budget, lambda item: _is_shown(item, space))
    # Of what is being drawn, which need not be the region: a picture of the viewport has a size and view of its own
    view = np.array(gpu.matrix.get_model_view_matrix(), np.float64)
    projection = np.array(gpu.matrix.get_projection_matrix(), np.float64)
    width, height = gpu.state.viewport_get()[2:]
    points = settings.point_size if settings.style == "POINTS" else 0.0
    rectangle = Rectangle(0, 0, 0, 0)
    for drawing, shown in zip(avatars.group.drawings, avatars.shown, strict=True):
        if shown and len(drawing.splats):
            bounds = drawing.bounds(settings.splat_scale)
            rectangle |= covered_rectangle(bounds, projection @ view, width, height, margin=2 + points)
    rectangle &= border_rectangle(context, projection @ view, width, height)
    if rectangle.empty:
        return
    scene_depth = _read_depth(rectangle)
    offscreen = _offscreen(width, height)
    with offscreen.bind():
        gpu.state.active_framebuffer_get().clear(color=(0, 0, 0, 0))
        gpu.state.depth_test_set("NONE")
        avatars.group.draw(
            view,
            projection,
            width,
            height,
            splat_scale=settings.splat_scale,
            scene_depth=scene_depth,
            depth_corner=(rectangle.left, rectangle.bottom),
            point_size=points,
            shown=avatars.shown,
        )
    _lay_over(offscreen, rectangle, width, height)


def _is_shown(item: bpy.types.Object, space: bpy.types.SpaceView3D) -> bool:
    """Whether this viewport shows the head ``item``, or what ``item`` instances: local view, local collections, types.

    Blender does not answer that for an instance itself.
    """
    if item.type == "MESH":
        return item.visible_in_viewport_get(space)
    if not space.show_object_viewport_mesh:
        return False
    if item.type == "EMPTY" and not space.show_object_viewport_empty:
        # The empty is hidden by its type, which does not hide what it instances
        return space.local_view is None or item.local_view_get(space)
    return item.visible_in_viewport_get(space)


def _avatars(context: bpy.types.Context) -> SceneAvatars:
    key = _key(context)
    if key not in _state.scenes:
        if len(_state.scenes) >= SCENES:
            del _state.scenes[next(iter(_state.scenes))]
        _state.scenes[key] = SceneAvatars()
    return _state.scenes[key]


def _read_depth(rectangle: Rectangle) -> gpu.types.GPUTexture:
    """The viewport's depth where splats may be. Python has no other way to it than by way of the CPU."""
    size = rectangle.width, rectangle.height
    depth = gpu.state.active_framebuffer_get().read_depth(rectangle.left, rectangle.bottom, *size)
    depth.dimensions = size[0] * size[1]
    return gpu.types.GPUTexture(size, format="R32F", data=depth)


def _lay_over(offscreen: gpu.types.GPUOffScreen, rectangle: Rectangle, width: int, height: int) -> None:
    shader, quad = _compositor()
    shader.bind()
    shader.uniform_sampler("picture", offscreen.texture_color)
    shader.uniform_float("low", (2 * rectangle.left / width - 1, 2 * rectangle.bottom / height - 1))
    shader.uniform_float("high", (2 * rectangle.right / width - 1, 2 * rectangle.top / height - 1))
    gpu.state.blend_set("ALPHA_PREMULT")
    quad.draw(shader)


def _offscreen(width: int, height: int) -> gpu.types.GPUOffScreen:
    if (width, height) not in _state.offscreens:
        if len(_state.offscreens) >= SIZES:  # of windows that were closed or dragged
            for offscreen in _state.offscreens.values():
                offscreen.free()
            _state.offscreens.clear()
        _state.offscreens[width, height] = gpu.types.GPUOffScreen(width, height, format="RGBA16F")
    return _state.offscreens[width, height]


@cache
def _compositor():
    info = gpu.types.GPUShaderCreateInfo()
    info.sampler(0, "FLOAT_2D", "picture")
    info.push_constant("VEC2", "low")
    info.push_constant("VEC2", "high")
    info.vertex_in(0, "VEC2", "corner")
    info.fragment_out(0, "VEC4", "result")
    info.vertex_source("void main() { gl_Position = vec4(mix(low, high, corner), 0.0, 1.0); }")
    info.fragment_source(_COMPOSITE)
    shader = gpu.shader.create_from_info(info)
    return shader, batch_for_shader(shader, "TRI_STRIP", {"corner": [(0, 0), (1, 0), (0, 1), (1, 1)]})
