"""File > Export > HeadStudio Splats: the avatar as it stands in this frame, or a numbered sequence, as .ply."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np
from bpy_extras.io_utils import ExportHelper, axis_conversion, orientation_helper

from ..engine.avatar.posing import PosedSplats
from ..engine.avatar.splats import SplatArrays
from ..engine.errors import UserError
from .expressions import avatar_mesh
from .rendered_scene import posed_avatar
from .splat_data import load_splats

TICK = 0.01  # seconds between two frames of a sequence, in which Blender may redraw and hear Escape


def posed_splats(
    splats: SplatArrays, mesh: bpy.types.Object, depsgraph: bpy.types.Depsgraph, axes: np.ndarray
) -> PosedSplats:
    """The splats on ``mesh`` as it stands, in world coordinates turned by ``axes`` [4, 4].

    The object's transform and the axes act on the mesh, from which positions, rotations, scales and SH all follow.
    Splats whose triangle the mesh has lost are left out.
    """
    evaluated = mesh.evaluated_get(depsgraph)
    avatar = posed_avatar(evaluated, evaluated.matrix_world, splats)
    return replace(avatar, matrix=axes @ avatar.matrix).posed()


@orientation_helper(axis_forward="Z", axis_up="Y")
class HEADSTUDIO_OT_export_ply(bpy.types.Operator, ExportHelper):
    """Export the posed splats of the active avatar for splat viewers, in world coordinates"""

    bl_idname = "export_scene.headstudio_ply"
    bl_label = "Export HeadStudio Splats"

    filename_ext = ".ply"
    filter_glob: bpy.props.StringProperty(default="*.ply", options={"HIDDEN"})
    sequence: bpy.props.BoolProperty(name="Sequence", description="One numbered file for each frame of a range")
    frame_start: bpy.props.IntProperty(name="Start", description="First frame. As long as it is not set: the scene's")
    frame_end: bpy.props.IntProperty(name="End", description="Last frame. As long as it is not set: the scene's")

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return avatar_mesh(context) is not None

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        self._set_range(context.scene)
        if not self.filepath:
            self.filepath = avatar_mesh(context).name + self.filename_ext
        return ExportHelper.invoke(self, context, event)

    def draw(self, _context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(self, "axis_forward")
        layout.prop(self, "axis_up")
        layout.prop(self, "sequence")
        column = layout.column(align=True)
        column.active = self.sequence
        column.prop(self, "frame_start")
        column.prop(self, "frame_end")

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            self._begin(context)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if self.sequence and context.window is not None and not bpy.app.background:
            self._timer = context.window_manager.event_timer_add(TICK, window=context.window)
            context.window_manager.progress_begin(0, len(self._frames))
            context.window_manager.modal_handler_add(self)
            return {"RUNNING_MODAL"}
        result = {"FINISHED"}
        try:
            if not self.sequence:
                self._write(context, self._path)
            while self.sequence and self._frames:
                self._next_frame(context)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            result = {"CANCELLED"}
        finally:
            if self.sequence:
                context.scene.frame_set(self._before)
        return result

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if event.type == "ESC":
            self.report({"WARNING"}, f"Export stopped before frame {self._frames[0]}.")
            return self._end(context, {"CANCELLED"})
        if event.type != "TIMER":
            return {"RUNNING_MODAL"}  # editing between two frames would tear the sequence apart
        try:
            self._next_frame(context)
        except (UserError, ReferenceError) as error:
            gone = isinstance(error, ReferenceError)
            self.report({"ERROR"}, "Export stopped: the avatar is no longer there." if gone else str(error))
            return self._end(context, {"CANCELLED"})
        return {"RUNNING_MODAL"} if self._frames else self._end(context, {"FINISHED"})

    def _set_range(self, scene: bpy.types.Scene) -> None:
        for name in ("frame_start", "frame_end"):
            if not self.properties.is_property_set(name):
                setattr(self, name, getattr(scene, name))

    def _begin(self, context: bpy.types.Context) -> None:
        scene = context.scene
        self._set_range(scene)
        self._path = Path(bpy.path.abspath(self.filepath))
        self._mesh = avatar_mesh(context)
        self._splats = load_splats(self._mesh.data.headstudio.splats)  # once: the frames differ in the mesh alone
        self._before = scene.frame_current
        self._frames = list(range(self.frame_start, self.frame_end + 1, scene.frame_step))
        self._count = len(self._frames)
        if self.sequence and not self._frames:
            raise UserError(f"There are no frames from {self.frame_start} to {self.frame_end}.")
        turn = axis_conversion(from_forward="-Y", from_up="Z", to_forward=self.axis_forward, to_up=self.axis_up)
        self._axes = np.rint(np.array(turn.to_4x4()))  # each axis goes to an axis; Blender's float32 leaves 1e-8

    def _next_frame(self, context: bpy.types.Context) -> None:
        frame = self._frames[0]
        context.scene.frame_set(frame)
        self._write(context, self._path.with_name(f"{self._path.stem}_{frame:04d}.ply"))
        self._frames.pop(0)
        done = self._count - len(self._frames)
        context.window_manager.progress_update(done)
        if context.workspace is not None:
            context.workspace.status_text_set(f"Exporting splats: {done} of {self._count} frames. Esc: stop")

    def _write(self, context: bpy.types.Context, path: Path) -> None:
        # plyfile comes with the extension as a wheel and is needed only here
        from ..engine.export.ply import write_ply

        write_ply(path, posed_splats(self._splats, self._mesh, context.evaluated_depsgraph_get(), self._axes))

    def _end(self, context: bpy.types.Context, result: set[str]) -> set[str]:
        context.window_manager.event_timer_remove(self._timer)
        context.window_manager.progress_end()
        context.workspace.status_text_set(None)
        context.scene.frame_set(self._before)
        return result


def menu_entry(menu: bpy.types.Menu, _context: bpy.types.Context) -> None:
    menu.layout.operator(HEADSTUDIO_OT_export_ply.bl_idname, text="HeadStudio Splats (.ply)")
