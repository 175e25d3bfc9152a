"""The render engine HEADSTUDIO: F12, animations and ``blender -b -a``, on the GPU, with or without a screen."""

from __future__ import annotations

import bpy
import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader
from mathutils import Matrix

from .splat_data import load_splats
from .splat_draw import SplatDrawing


def to_linear(colour: np.ndarray) -> np.ndarray:
    """Display-referred sRGB [..., 3] to scene-linear: what the view transform Standard shows unchanged."""
    return np.where(colour <= 0.04045, colour / 12.92, ((np.maximum(colour, 0) + 0.055) / 1.055) ** 2.4)


def mesh_arrays(mesh: bpy.types.Mesh, matrix: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """World vertices [N, 3] and triangles [M, 3] of an evaluated mesh."""
    vertices = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", vertices)
    mesh.calc_loop_triangles()
    triangles = np.empty(3 * len(mesh.loop_triangles), np.int32)
    mesh.loop_triangles.foreach_get("vertices", triangles)
    matrix = np.array(matrix, np.float32)
    return vertices.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3], triangles.reshape(-1, 3)


class HeadStudioRender(bpy.types.RenderEngine):
    """Avatars as splats; the scene's other meshes hide them and are otherwise left out (transparent)."""

    bl_idname = "HEADSTUDIO"
    bl_label = "HeadStudio"
    bl_use_gpu_context = True
    bl_use_preview = False

    def render(self, depsgraph: bpy.types.Depsgraph) -> None:
        scene = depsgraph.scene
        if scene.camera is None:
            self.report({"ERROR"}, "There is no camera to render from. Add one and make it the scene's camera.")
            return
        scale = scene.render.resolution_percentage / 100
        width, height = int(scene.render.resolution_x * scale), int(scene.render.resolution_y * scale)
        camera = scene.camera.evaluated_get(depsgraph)
        view = np.array(camera.matrix_world.normalized().inverted(), np.float64)
        projection = np.array(
            camera.calc_matrix_camera(
                depsgraph,
                x=width,
                y=height,
                scale_x=scene.render.pixel_aspect_x,
                scale_y=scene.render.pixel_aspect_y,
            ),
            np.float64,
        )
        wants_depth = depsgraph.view_layer_eval.use_pass_z
        colour, depth = draw_scene(depsgraph, view, projection, width, height, wants_depth)
        result = self.begin_result(0, 0, width, height)
        layer = result.layers[0]
        layer.passes["Combined"].rect.foreach_set(colour.astype(np.float32).ravel())
        if wants_depth:
            layer.passes["Depth"].rect.foreach_set(depth.astype(np.float32).ravel())
        self.end_result(result)


def draw_scene(depsgraph, view: np.ndarray, projection: np.ndarray, width: int, height: int, wants_depth: bool):
    """Premultiplied linear RGBA [H, W, 4] and, if wanted, depth [H, W] (metres, 1e10 where nothing is).

    Bottom row first.
    """
    avatars, occluders = [], []
    for instance in depsgraph.object_instances:
        item = instance.object
        if item.type != "MESH" or not instance.show_self:
            continue
        data = item.original.data.headstudio.splats
        vertices, triangles = mesh_arrays(item.data, instance.matrix_world)
        if data is None:
            occluders.append((vertices, triangles))
        else:
            drawing = SplatDrawing(load_splats(data))
            drawing.pose(vertices, triangles)
            avatars.append((-(drawing.centre @ view[2, :3] + view[2, 3]), drawing))
    avatars.sort(key=lambda pair: -pair[0])

    offscreen = gpu.types.GPUOffScreen(width, height, format="RGBA32F")
    try:
        pictures = []
        for depth_mode in (False, True) if wants_depth else (False,):
            with offscreen.bind():
                framebuffer = gpu.state.active_framebuffer_get()
                framebuffer.clear(color=(0, 0, 0, 0), depth=1.0)
                _draw_occluders(occluders, view, projection)
                gpu.state.depth_test_set("LESS_EQUAL")
                gpu.state.depth_mask_set(False)
                for _, drawing in avatars:
                    drawing.draw(view, projection, width, height, depth_mode=depth_mode)
                gpu.state.depth_test_set("NONE")
                rows = framebuffer.read_color(0, 0, width, height, 4, 0, "FLOAT")
                rows.dimensions = width * height * 4  # flat: numpy misreads a buffer of several dimensions
                pictures.append(np.array(rows, np.float32).reshape(height, width, 4))
    finally:
        offscreen.free()
    shown, alpha = pictures[0][..., :3], pictures[0][..., 3:]
    covered = np.maximum(alpha, 1e-6)
    colour = np.concatenate([to_linear(shown / covered) * alpha, alpha], -1)
    if not wants_depth:
        return colour, None
    return colour, np.where(alpha[..., 0] > 0.5, pictures[1][..., 0] / covered[..., 0], 1e10)


def _draw_occluders(occluders, view: np.ndarray, projection: np.ndarray) -> None:
    """Write the depth of the scene's other meshes."""
    if not occluders:
        return
    shader = gpu.shader.from_builtin("UNIFORM_COLOR")
    gpu.state.depth_test_set("LESS_EQUAL")
    gpu.state.depth_mask_set(True)
    gpu.state.color_mask_set(False, False, False, False)
    with gpu.matrix.push_pop(), gpu.matrix.push_pop_projection():
        gpu.matrix.load_matrix(Matrix(view.tolist()))
        gpu.matrix.load_projection_matrix(Matrix(projection.tolist()))
        for vertices, triangles in occluders:
            if len(triangles):
                batch_for_shader(shader, "TRIS", {"pos": vertices}, indices=triangles).draw(shader)
    gpu.state.color_mask_set(True, True, True, True)
