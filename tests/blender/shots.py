"""F12 in the tests: pictures read back from files, and what the engine makes of the same view."""

from __future__ import annotations

import numpy as np
from headstudio.avatar.posing import pose_splats
from support.engine_picture import engine_picture

WIDTH, HEIGHT = 160, 120  # pixels of the fixture `camera`


def shoot(bpy, scene, tmp_path, kind="PNG") -> np.ndarray:
    """F12, read back from its file as RGBA [H, W, 4], top row first.

    A PNG of 16 bits is straight and display-referred, an OPEN_EXR of 32 bits premultiplied and scene-linear.
    """
    settings = scene.render.image_settings
    settings.file_format, settings.color_mode = kind, "RGBA"
    settings.color_depth = {"PNG": "16", "OPEN_EXR": "32"}[kind]
    scene.render.filepath = str(tmp_path / "picture")
    bpy.ops.render.render(write_still=True)
    return read(bpy, scene.render.filepath + scene.render.file_extension)


def read(bpy, path) -> np.ndarray:
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    width, height = image.size
    pixels = np.array(image.pixels[:], np.float32).reshape(height, width, 4)[::-1]
    bpy.data.images.remove(image)
    return pixels


def expected(bpy, addon, scene, item, splats, posed=None) -> tuple[np.ndarray, np.ndarray]:
    """The engine's picture through the scene's camera as Blender's manual describes it: sensor, fit, shift, aspect."""
    if posed is None:
        evaluated = item.evaluated_get(bpy.context.evaluated_depsgraph_get())
        posed = pose_splats(splats, *addon.rendered_scene.mesh_arrays(evaluated.data, evaluated.matrix_world))
    data, render = scene.camera.data, scene.render
    scale = render.resolution_percentage / 100
    width, height = int(render.resolution_x * scale), int(render.resolution_y * scale)
    tall = render.pixel_aspect_y / render.pixel_aspect_x  # height of a pixel in its widths
    wide_picture = width * render.pixel_aspect_x >= height * render.pixel_aspect_y
    horizontal = data.sensor_fit == "HORIZONTAL" or (data.sensor_fit == "AUTO" and wide_picture)
    sensor = data.sensor_height if data.sensor_fit == "VERTICAL" else data.sensor_width
    fitted = width if horizontal else height * tall
    focal = fitted / data.ortho_scale if data.type == "ORTHO" else fitted * data.lens / sensor
    intrinsics = np.array(
        [
            [focal, 0, width / 2 - data.shift_x * fitted],
            [0, focal / tall, height / 2 + data.shift_y * fitted / tall],
            [0, 0, 1],
        ]
    )
    view = np.diag([1, -1, -1, 1]) @ np.array(scene.camera.matrix_world.normalized().inverted())
    return engine_picture(posed, view, intrinsics, width, height, data.type == "ORTHO")


def add_plane(bpy, scene, corners, colour=None):
    """A quadrilateral, which shines in ``colour``."""
    mesh = bpy.data.meshes.new("Plane")
    mesh.from_pydata(corners, [], [range(len(corners))])
    item = bpy.data.objects.new("Plane", mesh)
    scene.collection.objects.link(item)
    if colour is not None:
        material = bpy.data.materials.new("Light")
        material.use_nodes = True
        nodes = material.node_tree.nodes
        light = nodes.new("ShaderNodeEmission")
        light.inputs["Color"].default_value = (*colour, 1)
        output = next(node for node in nodes if node.type == "OUTPUT_MATERIAL")
        material.node_tree.links.new(light.outputs[0], output.inputs["Surface"])
        mesh.materials.append(material)
    return item


def left_half(y: float, edge: float = 0.0) -> list:
    """A wall at ``y`` that ends at x = ``edge`` and covers all to its left in the picture."""
    return [(-1, y, -1), (edge, y, -1), (edge, y, 1), (-1, y, 1)]
