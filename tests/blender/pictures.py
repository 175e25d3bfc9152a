"""Avatars of noise, and the same view of one drawn by Blender and by the engine."""

from __future__ import annotations

import numpy as np
from headstudio.avatar.posing import pose_splats
from headstudio.avatar.splats import SplatArrays
from headstudio.heads.arrays import HeadArrays
from support.engine_picture import engine_picture


def random_splats(head: HeadArrays, count: int, coefficients: int, seed: int = 0) -> SplatArrays:
    """Splats of every size, shape and colour, anywhere on ``head``."""
    rng = np.random.default_rng(seed)
    rotation = rng.normal(size=(count, 4))
    return SplatArrays(
        triangle=rng.integers(0, len(head.triangles), count).astype(np.int32),
        offset=(0.3 * rng.normal(size=(count, 3))).astype(np.float32),
        scale=np.exp(0.4 * rng.normal(size=(count, 3)) - 1).astype(np.float32),
        rotation=(rotation / np.linalg.norm(rotation, axis=1, keepdims=True)).astype(np.float32),
        sh=(0.4 * rng.normal(size=(count, coefficients, 3))).astype(np.float32),
        opacity=rng.random(count).astype(np.float32),
    )


def picture_by_engine(bpy, addon, scene, item, splats: SplatArrays, width: int, height: int):
    """The engine's CPU render of ``item``'s evaluated mesh through the scene's camera: colour and alpha."""
    depsgraph = bpy.context.evaluated_depsgraph_get()
    evaluated = item.evaluated_get(depsgraph)
    posed = pose_splats(splats, *addon.rendered_scene.mesh_arrays(evaluated.data, evaluated.matrix_world))
    view = np.array(scene.camera.matrix_world.normalized().inverted())
    p = np.array(scene.camera.calc_matrix_camera(depsgraph, x=width, y=height))
    intrinsics = np.array(
        [
            [width / 2 * p[0, 0], 0, width / 2 * (1 - p[0, 2] + p[0, 3])],
            [0, height / 2 * p[1, 1], height / 2 * (1 + p[1, 2] - p[1, 3])],
            [0, 0, 1],
        ]
    )
    return engine_picture(posed, np.diag([1, -1, -1, 1]) @ view, intrinsics, width, height, bool(p[3, 3] > 0.5))


def picture_by_blender(bpy, scene, tmp_path, width: int, height: int) -> np.ndarray:
    """F12 with the HEADSTUDIO engine on a transparent film, as the view transform Standard shows it.

    Straight RGBA [H, W, 4], top row first.
    """
    scene.render.engine = "HEADSTUDIO"
    scene.render.resolution_x, scene.render.resolution_y = width, height
    scene.render.film_transparent = True
    scene.view_settings.view_transform = "Standard"
    settings = scene.render.image_settings
    settings.file_format, settings.color_mode, settings.color_depth = "PNG", "RGBA", "16"
    scene.render.filepath = str(tmp_path / "picture.png")
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(scene.render.filepath)
    image.colorspace_settings.name = "Non-Color"
    pixels = np.array(image.pixels[:], np.float32).reshape(height, width, 4)[::-1]
    bpy.data.images.remove(image)
    return pixels


def psnr(picture: np.ndarray, colour: np.ndarray) -> float:
    """Decibels between Blender's straight RGBA [H, W, 4] and the engine's premultiplied colour [H, W, 3]."""
    error = picture[..., :3] * picture[..., 3:] - np.clip(colour, 0, 1)
    return float(-10 * np.log10(np.square(error).mean()))
