"""File > Export > HeadStudio Avatar: the avatar file again, from what the .blend holds.

The head is kept beside the splats as it came, because a rig's shape keys and bones do not say all that a head is (its
landmarks, regions and controls). What was sculpted on the rig stays in Blender.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import bpy
import numpy as np
from bpy_extras.io_utils import ExportHelper

from ..engine.errors import UserError
from .expressions import avatar_mesh
from .splat_data import load_splats

if TYPE_CHECKING:
    from ..engine.avatar.file import Avatar

ENDING = ".avatar.npz"
KEPT = "headstudio_avatar"  # custom property of the splats' data-block


def kept_avatar(splats: bpy.types.Mesh) -> Avatar:
    """The avatar whose splats these are. Raises ``UserError`` if its head was not kept or is damaged."""
    from ..engine.avatar.file import unpack_avatar  # not when Blender starts: see import_avatar.py

    packed = splats.get(KEPT)
    if not isinstance(packed, bytes):
        raise UserError(f"{splats.name} does not hold its head. Import the avatar anew from its file to export it.")
    try:
        with np.load(io.BytesIO(packed)) as archive:
            avatar = unpack_avatar(dict(archive), Path(splats.name))
        return replace(avatar, splats=load_splats(splats))
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{splats.name} holds a damaged avatar: {error}. Import it anew from its file.") from error


class HEADSTUDIO_OT_export_avatar(bpy.types.Operator, ExportHelper):
    """Export the active avatar as an avatar file: its head as it was imported, and its splats"""

    bl_idname = "export_scene.headstudio_avatar"
    bl_label = "Export HeadStudio Avatar"

    filename_ext = ENDING
    filter_glob: bpy.props.StringProperty(default=f"*{ENDING}", options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return avatar_mesh(context) is not None

    def check(self, _context: bpy.types.Context) -> bool:
        """Keep the ending, of which Blender's own helper knows the last part alone."""
        wanted = self.filepath.removesuffix(".npz").removesuffix(".avatar") + ENDING
        changed = wanted != self.filepath
        self.filepath = wanted
        return changed

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if not self.filepath:
            self.filepath = avatar_mesh(context).name + ENDING
        return ExportHelper.invoke(self, context, event)

    def execute(self, context: bpy.types.Context) -> set[str]:
        from ..engine.avatar.file import save_avatar

        path = bpy.path.abspath(self.filepath)
        try:
            save_avatar(path, kept_avatar(avatar_mesh(context).data.headstudio.splats))
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"INFO"}, f"Exported {path}")
        return {"FINISHED"}


def menu_entry(menu: bpy.types.Menu, _context: bpy.types.Context) -> None:
    menu.layout.operator(HEADSTUDIO_OT_export_avatar.bl_idname, text=f"HeadStudio Avatar ({ENDING})")
