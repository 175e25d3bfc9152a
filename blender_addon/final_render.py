"""The render engine HEADSTUDIO: F12, animations and ``blender -b -a``, with or without a screen."""

from __future__ import annotations

from collections.abc import Callable

import bpy
import numpy as np

from ..engine.errors import UserError
from .camera_view import CameraView, camera_view
from .cpu_render import draw_by_engine
from .gpu_context import why_no_gpu
from .gpu_render import MAX_SIDE, draw_on_gpu
from .render_settings import CPU
from .rendered_scene import rendered_scene

NOTHING = 1e10  # metres: the Depth pass where no splat is, as in Cycles


def to_linear(colour: np.ndarray) -> np.ndarray:
    """Display-referred sRGB [..., 3] to scene-linear: what the view transform Standard shows unchanged."""
    return np.where(colour <= 0.04045, colour / 12.92, ((np.maximum(colour, 0) + 0.055) / 1.055) ** 2.4)


def to_display(colour: np.ndarray) -> np.ndarray:
    """The inverse of :func:`to_linear`."""
    return np.where(colour <= 0.0031308, colour * 12.92, 1.055 * np.maximum(colour, 0) ** (1 / 2.4) - 0.055)


def edge_offsets(samples: int) -> np.ndarray:
    """Evenly spread places [S, 2] within a pixel, from -0.5 to 0.5; the middle if there is but one."""
    index = np.arange(1, samples + 1) if samples > 1 else np.zeros(1)
    # Multiples of the plastic number's powers: a sequence of low discrepancy in two dimensions
    return np.stack([(0.5 + index * 0.7548776662) % 1, (0.5 + index * 0.5698402910) % 1], -1) - 0.5


class HeadStudioRender(bpy.types.RenderEngine):
    """Avatars as splats. Other surfaces of the scene are held out: they hide splats and are themselves transparent, so
    that the picture can be laid over that of another engine."""

    bl_idname = "HEADSTUDIO"
    bl_label = "HeadStudio"
    # With a window Blender makes the context beforehand, on its main thread. Without one `update` asks for it, because
    # Blender would end its process where there is no GPU context to be had.
    bl_use_gpu_context = not bpy.app.background
    bl_use_preview = False

    def update(self, _data: bpy.types.BlendData, depsgraph: bpy.types.Depsgraph) -> None:
        if bpy.app.background:
            self.bl_use_gpu_context = depsgraph.scene.headstudio_render.device != CPU and not why_no_gpu()

    def update_render_passes(self, scene: bpy.types.Scene, layer: bpy.types.ViewLayer) -> None:
        self.register_pass(scene, layer, "Combined", 4, "RGBA", "COLOR")
        if layer.use_pass_z:
            self.register_pass(scene, layer, "Depth", 1, "Z", "VALUE")

    def render(self, depsgraph: bpy.types.Depsgraph) -> None:
        try:
            self._render(depsgraph)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            self.error_set(str(error))  # above the picture, where a window shows it

    def _render(self, depsgraph: bpy.types.Depsgraph) -> None:
        scene = depsgraph.scene.original
        settings = scene.headstudio_render
        lead = settings.main or scene
        view = self._view(depsgraph, lead)
        wants_depth = depsgraph.view_layer_eval.use_pass_z
        found = rendered_scene(depsgraph)
        for notice in found.notices:
            self.report({"WARNING"}, notice)
        offsets = edge_offsets(settings.edge_samples)
        if settings.device == CPU:
            draw: Callable[..., tuple[np.ndarray, np.ndarray | None] | None] = draw_by_engine
        elif why_no_gpu():
            raise UserError(
                f"There is no GPU to render with: {why_no_gpu()}. Or set Render > HeadStudio > Device to CPU."
            )
        else:
            draw = draw_on_gpu
        drawn = draw(view, found.avatars, found.surfaces, offsets, wants_depth, self._advance)
        if drawn is not None:
            self._hand_over(view, *drawn, _background(scene))

    def _view(self, depsgraph: bpy.types.Depsgraph, lead: bpy.types.Scene) -> CameraView:
        """What is to be rendered. Raises ``UserError`` if it cannot be."""
        if lead.camera is None:
            raise UserError("There is no camera to render from. Add one and make it the scene's camera.")
        if lead.camera.type != "CAMERA" or lead.camera.data.type not in {"PERSP", "ORTHO"}:
            raise UserError(
                f"{lead.camera.name} is no perspective or orthographic camera: HeadStudio renders no other."
            )
        width, height = self.resolution_x, self.resolution_y
        if max(width, height) > MAX_SIDE:
            raise UserError(
                f"A picture of {width} x {height} pixels is too large: HeadStudio renders up to {MAX_SIDE}."
            )
        view = camera_view(depsgraph, lead.camera, lead.render, width, height)
        if not np.isfinite(view.view).all():
            raise UserError(f"{lead.camera.name} is scaled to nothing. Put its scale back to 1 to render from it.")
        return view

    def _advance(self, done: float) -> bool:
        """Show the share that is done; False once the render was cancelled."""
        self.update_progress(done)
        return not self.test_break()

    def _hand_over(
        self,
        view: CameraView,
        picture: np.ndarray,  # [H, W, 4] premultiplied, display-referred, bottom row first
        depth: np.ndarray | None,  # [H, W] times alpha
        background: np.ndarray | None,  # [3] scene-linear; none: transparent
    ) -> None:
        """Give the picture to Blender, scene-linear and premultiplied."""
        alpha = picture[..., 3:]
        covered = np.maximum(alpha, 1e-6)
        if background is None:
            colour = np.concatenate([to_linear(picture[..., :3] / covered) * alpha, alpha], -1)
        else:
            # Blended in display-referred colour, as the splats themselves were
            shown = picture[..., :3] + (1 - alpha) * to_display(background)
            colour = np.concatenate([to_linear(shown), np.ones_like(alpha)], -1)
        left, bottom, right, top = view.border
        result = self.begin_result(0, 0, right - left, top - bottom)
        passes = result.layers[0].passes
        passes["Combined"].rect.foreach_set(np.ascontiguousarray(colour, np.float32).ravel())
        if depth is not None:
            metres = np.where(alpha[..., 0] > 0.5, depth / covered[..., 0], NOTHING)
            passes["Depth"].rect.foreach_set(metres.astype(np.float32).ravel())
        self.end_result(result)


def _background(scene: bpy.types.Scene) -> np.ndarray | None:
    """The world's viewport colour [3], scene-linear; None where the film is transparent."""
    if scene.render.film_transparent:
        return None
    return np.array(scene.world.color) if scene.world is not None else np.zeros(3)
