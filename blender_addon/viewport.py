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

from .final_render import mesh_arrays
from .splat_data import load_splats
from .splat_draw import SplatDrawing

_COMPOSITE = """
void main() {
  vec4 c = texelFetch(picture, ivec2(gl_FragCoord.xy), 0);
  vec3 shown = c.rgb / max(c.a, 1e-6);
  vec3 linear = mix(shown / 12.92, pow((shown + 0.055) / 1.055, vec3(2.4)), step(0.04045, shown));
  result = vec4(linear * c.a, c.a);
}
"""


@dataclass
class _Drawn:
    """An avatar's tables on the GPU and what they were made from."""

    source: int  # session id of the splats' data-block
    drawing: SplatDrawing
    stale: bool = True


@dataclass
class _Viewports:
    """All that this module keeps while the extension is enabled."""

    handle: object | None = None
    avatars: dict[int, _Drawn] = field(default_factory=dict)  # by the mesh object's session id
    offscreens: dict[tuple[int, int], gpu.types.GPUOffScreen] = field(default_factory=dict)
    failed: bool = False


_state = _Viewports()


def register() -> None:
    _state.handle = bpy.types.SpaceView3D.draw_handler_add(_draw_safely, (), "WINDOW", "POST_VIEW")
    bpy.app.handlers.depsgraph_update_post.append(_on_update)
    bpy.app.handlers.frame_change_post.append(_on_frame)
    bpy.app.handlers.load_pre.append(_on_load)


def unregister() -> None:
    bpy.types.SpaceView3D.draw_handler_remove(_state.handle, "WINDOW")
    bpy.app.handlers.depsgraph_update_post.remove(_on_update)
    bpy.app.handlers.frame_change_post.remove(_on_frame)
    bpy.app.handlers.load_pre.remove(_on_load)
    _clear()


def _clear() -> None:
    _state.avatars.clear()
    for offscreen in _state.offscreens.values():
        offscreen.free()
    _state.offscreens.clear()
    _state.failed = False


@bpy.app.handlers.persistent
def _on_load(*_) -> None:
    _clear()


@bpy.app.handlers.persistent
def _on_frame(*_) -> None:
    for drawn in _state.avatars.values():
        drawn.stale = True


@bpy.app.handlers.persistent
def _on_update(_scene, depsgraph) -> None:
    for update in depsgraph.updates:
        if isinstance(update.id, bpy.types.Object) and (update.is_updated_geometry or update.is_updated_transform):
            drawn = _state.avatars.get(update.id.original.session_uid)
            if drawn is not None:
                drawn.stale = True


def _draw_safely() -> None:
    """A fault in drawing must neither flood the console nor stop Blender's own drawing."""
    if _state.failed:
        return
    try:
        _draw(bpy.context)
    except Exception:
        _state.failed = True
        traceback.print_exc()
    finally:
        gpu.state.blend_set("NONE")
        gpu.state.depth_test_set("NONE")


def _draw(context: bpy.types.Context) -> None:
    space, region = context.space_data, context.region_data
    objects = [
        item
        for item in context.view_layer.objects
        if item.type == "MESH" and item.data.headstudio.splats is not None and item.visible_in_viewport_get(space)
    ]
    if not objects:
        return
    depsgraph = context.evaluated_depsgraph_get()
    view = np.array(region.view_matrix, np.float64)
    projection = np.array(region.window_matrix, np.float64)
    width, height = context.region.width, context.region.height
    drawings = []
    for item in objects:
        drawing = _drawing(item, depsgraph)
        drawings.append((-(drawing.centre @ view[2, :3] + view[2, 3]), drawing))
    drawings.sort(key=lambda pair: -pair[0])

    framebuffer = gpu.state.active_framebuffer_get()
    depth = framebuffer.read_depth(0, 0, width, height)
    depth.dimensions = width * height
    scene_depth = gpu.types.GPUTexture((width, height), format="R32F", data=depth)
    offscreen = _offscreen(width, height)
    with offscreen.bind():
        gpu.state.active_framebuffer_get().clear(color=(0, 0, 0, 0), depth=1.0)
        for _, drawing in drawings:
            drawing.draw(view, projection, width, height, scene_depth=scene_depth)
    shader, quad = _compositor()
    shader.bind()
    shader.uniform_sampler("picture", offscreen.texture_color)
    gpu.state.blend_set("ALPHA_PREMULT")
    quad.draw(shader)


def _drawing(item: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> SplatDrawing:
    """The avatar's tables, made when it is first seen and posed when its mesh has moved."""
    splats = item.data.headstudio.splats
    drawn = _state.avatars.get(item.session_uid)
    if drawn is None or drawn.source != splats.session_uid:
        drawn = _Drawn(splats.session_uid, SplatDrawing(load_splats(splats)))
        _state.avatars[item.session_uid] = drawn
    if drawn.stale:
        evaluated = item.evaluated_get(depsgraph)
        drawn.drawing.pose(*mesh_arrays(evaluated.data, evaluated.matrix_world))
        drawn.stale = False
    return drawn.drawing


def _offscreen(width: int, height: int) -> gpu.types.GPUOffScreen:
    if (width, height) not in _state.offscreens:
        if len(_state.offscreens) > 8:  # sizes of windows that were closed or dragged
            for offscreen in _state.offscreens.values():
                offscreen.free()
            _state.offscreens.clear()
        _state.offscreens[width, height] = gpu.types.GPUOffScreen(width, height, format="RGBA16F")
    return _state.offscreens[width, height]


@cache
def _compositor():
    info = gpu.types.GPUShaderCreateInfo()
    info.sampler(0, "FLOAT_2D", "picture")
    info.vertex_in(0, "VEC2", "corner")
    info.fragment_out(0, "VEC4", "result")
    info.vertex_source("void main() { gl_Position = vec4(corner, 0.0, 1.0); }")
    info.fragment_source(_COMPOSITE)
    shader = gpu.shader.create_from_info(info)
    return shader, batch_for_shader(shader, "TRI_STRIP", {"corner": [(-1, -1), (1, -1), (-1, 1), (1, 1)]})
