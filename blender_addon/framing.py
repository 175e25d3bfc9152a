"""Turns 3D views to an avatar: a head of 20 cm is a speck where a whole scene is looked at.

By itself this happens once for each avatar that was asked for, in views that do not show it well and that have been
left alone since. A view is only moved and zoomed, never turned.
"""

from __future__ import annotations

import bpy
import numpy as np

from .expressions import avatar_mesh
from .job_preview import find_preview, jobs_with_preview

# Radius of the sphere around a head in halves of the view's smaller side
FRAMED, TOO_SMALL = 0.7, 0.15

Poses = dict[int, tuple]  # how each 3D view looked at the scene, by its area


def poses(window_manager: bpy.types.WindowManager) -> Poses:
    """How all 3D views look at their scenes now."""
    areas = [area for window in window_manager.windows for area in window.screen.areas if area.type == "VIEW_3D"]
    return {area.as_pointer(): _pose(area.spaces.active.region_3d) for area in areas}


def show(head: bpy.types.Object, window_manager: bpy.types.WindowManager, unmoved: Poses | None = None) -> None:
    """Frame ``head`` in the 3D views of all windows in which it is hardly to be seen.

    Left alone are views through a camera, local views, views that follow something, all while something is edited, and,
    if ``unmoved`` is given, those that look otherwise than they did then. Does nothing without windows.
    """
    if bpy.app.background:
        return
    for window in window_manager.windows:
        active = window.view_layer.objects.active
        if head.name not in window.view_layer.objects or (active is not None and active.mode != "OBJECT"):
            continue
        window.view_layer.update()  # where a new head stands
        centre, radius = sphere_around(head)
        for area in window.screen.areas:
            space = area.spaces.active
            if area.type != "VIEW_3D" or space.local_view or space.lock_object or space.lock_cursor:
                continue
            view = space.region_3d
            if view.view_perspective == "CAMERA" or radius == 0:
                continue
            if unmoved is not None and unmoved.get(area.as_pointer()) != _pose(view):
                continue
            if apparent_radius(view, centre, radius) < TOO_SMALL:
                look_at(view, centre, radius)
                area.tag_redraw()


def sphere_around(head: bpy.types.Object) -> tuple[np.ndarray, float]:
    """Centre [3] and radius of the sphere around the object's box, world, metres."""
    corners = np.array(head.bound_box) @ np.array(head.matrix_world)[:3, :3].T + np.array(head.matrix_world)[:3, 3]
    centre = (corners.min(0) + corners.max(0)) / 2
    return centre, float(np.linalg.norm(corners - centre, axis=1).max())


def apparent_radius(
    view: bpy.types.RegionView3D,
    centre: np.ndarray,  # [3] world, metres
    radius: float,
) -> float:
    """The sphere's radius in halves of the view's smaller side; 0 if its centre is not in the view."""
    projection = np.array(view.window_matrix)
    clip = projection @ np.array(view.view_matrix) @ [*centre, 1.0]
    if clip[3] <= 0 or np.abs(clip[:2]).max() > clip[3]:
        return 0.0
    return float(radius * max(projection[0, 0], projection[1, 1]) / clip[3])


def look_at(
    view: bpy.types.RegionView3D,
    centre: np.ndarray,  # [3] world, metres
    radius: float,
) -> None:
    """Move and zoom the view, which looks through no camera, so that the sphere is ``FRAMED``."""
    projection = np.array(view.window_matrix)
    size = radius * max(projection[0, 0], projection[1, 1])  # at one metre, or in an orthographic view as it is now
    view.view_location = centre
    view.view_distance = (1.0 if view.is_perspective else view.view_distance) * size / FRAMED


def _pose(view: bpy.types.RegionView3D) -> tuple:
    return (*view.view_location, *view.view_rotation, view.view_distance, view.view_perspective)


def _shown_head(context: bpy.types.Context) -> bpy.types.Object | None:
    """The active avatar, or else one that a job is making in this scene."""
    previews = (find_preview(folder) for folder, scene in jobs_with_preview().items() if scene == context.scene.name)
    return avatar_mesh(context) or next(previews, None)


class HEADSTUDIO_OT_frame_avatar(bpy.types.Operator):
    """Move and zoom this view so that the avatar's head fills it"""

    bl_idname = "headstudio.frame_avatar"
    bl_label = "Frame Avatar"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if context.space_data is None or context.space_data.type != "VIEW_3D" or _shown_head(context) is None:
            return False
        if context.space_data.region_3d.view_perspective == "CAMERA":
            cls.poll_message_set("This view looks through the camera: leave it first (Numpad 0)")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        look_at(context.space_data.region_3d, *sphere_around(_shown_head(context)))
        return {"FINISHED"}


CLASSES = (HEADSTUDIO_OT_frame_avatar,)
