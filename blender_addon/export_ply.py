"""File > Export > HeadStudio Splats: the avatar as it stands in this frame, or a numbered sequence, as .ply."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
from bpy_extras.io_utils import ExportHelper, axis_conversion, orientation_helper

from ..engine.avatar.posing import PosedSplats, pose_splats
from ..engine.avatar.splats import SplatArrays
from ..engine.errors import UserError
from .expressions import avatar_mesh
from .final_render import mesh_arrays
from .splat_data import load_splats

TICK = 0.01  # seconds between two frames of a sequence, in which Blender may redraw and hear Escape


def posed_splats(
    splats: SplatArrays, mesh: bpy.types.Object, depsgraph: bpy.types.Depsgraph, axes: np.ndarray
) -> PosedSplats:
    """The splats on ``mesh`` as it stands, in world coordinates turned by ``axes`` [3, 3].

    The object's transform and the axes act on the mesh, from which positions, rotations, scales and SH all follow.
    """
    evaluated = mesh.evaluated_get(depsgraph)
    vertices, triangles = mesh_arrays(evaluated.data, evaluated.matrix_world)
    return pose_splats(splats, vertices @ axes.T, triangles)


@orientation_helper(axis_forward="Z", axis_up="Y")
class HEADSTUDIO_OT_export_ply(bpy.types.Operator, ExportHelper):
    """Export the posed splats of the active avatar for splat viewers"""

    bl_idname = "export_scene.headstudio_ply"
    bl_label = "Export HeadStudio Splats"

    filename_ext = ".ply"
    filter_glob: bpy.props.StringProperty(default="*.ply", options={"HIDDEN"})
    sequence: bpy.props.BoolProperty(name="Sequence", description="One file for each frame of the scene's range")

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return avatar_mesh(context) is not None

    def execute(self, context: bpy.types.Context) -> set[str]:
        self._begin(context)
        if self.sequence and context.window is not None and not bpy.app.background:
            context.window_manager.progress_begin(0, len(self._frames))
            self._timer = context.window_manager.event_timer_add(TICK, window=context.window)
            context.window_manager.modal_handler_add(self)
            return {"RUNNING_MODAL"}
        try:
            if not self.sequence:
                self._write(context, Path(self.filepath))
            while self.sequence and self._frames:
                self._next_frame(context)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        finally:
            context.scene.frame_set(self._before)
        return {"FINISHED"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if event.type == "ESC":
            self.report({"WARNING"}, f"Export stopped before frame {self._frames[0]}.")
            return self._end(context, {"CANCELLED"})
        if event.type != "TIMER":
            return {"PASS_THROUGH"}
        try:
            self._next_frame(context)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return self._end(context, {"CANCELLED"})
        return {"RUNNING_MODAL"} if self._frames else self._end(context, {"FINISHED"})

    def _begin(self, context: bpy.types.Context) -> None:
        scene = context.scene
        self._mesh = avatar_mesh(context)
        self._splats = load_splats(self._mesh.data.headstudio.splats)  # once: the frames differ in the mesh alone
        self._before = scene.frame_current
        self._frames = list(range(scene.frame_start, scene.frame_end + 1, scene.frame_step))
        self._done = 0
        turn = axis_conversion(from_forward="-Y", from_up="Z", to_forward=self.axis_forward, to_up=self.axis_up)
        self._axes = np.array(turn, np.float32)

    def _next_frame(self, context: bpy.types.Context) -> None:
        frame = self._frames[0]
        context.scene.frame_set(frame)
        path = Path(self.filepath)
        self._write(context, path.with_name(f"{path.stem}_{frame:04d}.ply"))
        self._frames.pop(0)
        self._done += 1
        context.window_manager.progress_update(self._done)

    def _write(self, context: bpy.types.Context, path: Path) -> None:
        # plyfile comes with the extension as a wheel and is needed only here
        from ..engine.export.ply import write_ply

        write_ply(path, posed_splats(self._splats, self._mesh, context.evaluated_depsgraph_get(), self._axes))

    def _end(self, context: bpy.types.Context, result: set[str]) -> set[str]:
        context.window_manager.event_timer_remove(self._timer)
        context.window_manager.progress_end()
        context.scene.frame_set(self._before)
        return result


def menu_entry(menu: bpy.types.Menu, _context: bpy.types.Context) -> None:
    menu.layout.operator(HEADSTUDIO_OT_export_ply.bl_idname, text="HeadStudio Splats (.ply)")
