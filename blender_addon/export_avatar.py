"""File > Export > HeadStudio Avatar: the avatar file again, from what the .blend holds.

The head is kept beside the splats as it came, because a rig's shape keys and bones do not say all that a head is (its
landmarks, regions and controls). What was sculpted on the rig stays in Blender.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import bpy
import numpy as np
from bpy_extras.io_utils import ExportHelper

from ..engine.avatar.file import Avatar, pack_avatar, save_avatar, unpack_avatar
from ..engine.errors import UserError
from .expressions import avatar_mesh
from .splat_data import load_splats

ENDING = ".avatar.npz"
HEAD = "headstudio_head"  # custom property of the splats' data-block
PROVENANCE = "provenance"


def keep_avatar(splats: bpy.types.Mesh, avatar: Avatar) -> None:
    """Note on the splats' data-block all of the avatar that is not splats."""
    arrays = {name: array for name, array in pack_avatar(avatar).items() if not name.startswith("splats.")}
    archive = io.BytesIO()
    np.savez(archive, **arrays)  # not deflated: it would take longer than all the rest of an import
    splats[HEAD] = archive.getvalue()
    splats[PROVENANCE] = json.dumps(avatar.provenance)


def kept_avatar(splats: bpy.types.Mesh) -> Avatar:
    """The avatar whose splats these are. Raises ``UserError`` if its head was not kept or is damaged."""
    packed = splats.get(HEAD)
    if not isinstance(packed, bytes):
        raise UserError(f"{splats.name} does not hold its head. Import the avatar anew from its file to export it.")
    try:
        with np.load(io.BytesIO(packed)) as archive:
            arrays = dict(archive)
        provenance = json.loads(splats[PROVENANCE])
        head = unpack_avatar({**arrays, **_no_splats()}, Path(splats.name)).head
        return Avatar(head, load_splats(splats), provenance)
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{splats.name} holds a damaged avatar: {error}. Import it anew from its file.") from error


def _no_splats() -> dict[str, np.ndarray]:
    shapes = {"offset": (0, 3), "scale": (0, 3), "sh": (0, 1, 3)}
    return {
        "splats.triangle": np.zeros(0, np.int32),
        **{f"splats.{name}": np.zeros(shape, np.float16) for name, shape in shapes.items()},
        "splats.rotation": np.zeros((0, 4), np.int16),
        "splats.opacity": np.zeros(0, np.uint16),
    }


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
