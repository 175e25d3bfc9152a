"""The avatar of a job as it is so far: a still head with splats that every snapshot replaces.

It has neither shape keys nor bones, so that taking a snapshot in costs milliseconds; the rig comes with the finished
avatar.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import bpy

from .rig import head_mesh
from .rig_arrays import to_blender
from .splat_data import bind_splats, store_splats

if TYPE_CHECKING:
    from ..engine.avatar.file import Avatar

JOB_PROPERTY = "headstudio_job"  # on the preview's object: the job's folder


def show_preview(folder: Path, name: str, avatar: Avatar, scene: bpy.types.Scene) -> bpy.types.Object:
    """Put the avatar in the place of the job's snapshot before, or link a new object into ``scene``."""
    shown = find_preview(folder)
    points = to_blender(avatar.head.vertices).ravel()
    if shown is None or 3 * len(shown.data.vertices) != len(points):
        remove_preview(folder)
        data = head_mesh(points, avatar.head.triangles.ravel(), f"{name} preview")
        shown = bpy.data.objects.new(f"{name} preview", data)
        shown[JOB_PROPERTY] = str(folder)
        shown.display_type = "BOUNDS"  # its splats are what one wants to see
        shown.hide_select = True  # nothing that is done to it would last
        scene.collection.objects.link(shown)
    else:
        shown.data.attributes["position"].data.foreach_set("vector", points)
        shown.data.update()
    before, splats = shown.data.headstudio.splats, store_splats(avatar.splats, f"{name} preview")
    if before is None:
        bind_splats(shown.data, splats)
    else:
        shown.data.headstudio.splats = splats
        if before.users == 0:
            bpy.data.meshes.remove(before)
    return shown


def find_preview(folder: Path) -> bpy.types.Object | None:
    """The object that shows the job's snapshot in this file, wherever it has been moved or renamed to."""
    wanted = str(folder)
    return next((item for item in bpy.data.objects if item.get(JOB_PROPERTY) == wanted), None)


def remove_preview(folder: Path) -> None:
    """Take the job's snapshot out of the file, if it is there."""
    shown = find_preview(folder)
    if shown is None:
        return
    data = shown.data
    splats = data.headstudio.splats
    bpy.data.objects.remove(shown)
    if data.users == 0:
        bpy.data.meshes.remove(data)
    if splats is not None and splats.users == 0:
        bpy.data.meshes.remove(splats)


def jobs_with_preview() -> dict[Path, str]:
    """The folders of all jobs whose snapshot this file shows, with the name of the scene that it is in."""
    found = {}
    for item in bpy.data.objects:
        if isinstance(item.get(JOB_PROPERTY), str) and item.users_scene:
            found[Path(item[JOB_PROPERTY])] = item.users_scene[0].name
    return found
