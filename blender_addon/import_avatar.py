"""File > Import > HeadStudio Avatar, and dropping a file on the viewport: it becomes a rig with splats.

What reads avatars is imported when one is read: its dataclasses would take a third of the time to enable the extension.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import bpy
from bpy_extras.io_utils import ImportHelper

from ..engine.errors import UserError
from . import framing
from .export_avatar import ENDING, KEPT
from .rig import Rig, all_or_nothing, build_rig
from .splat_data import bind_splats, store_splats

if TYPE_CHECKING:
    from ..engine.avatar.file import Avatar
    from .avatar_parts import AvatarParts


def import_avatar(avatar: Avatar, name: str, parent: bpy.types.Collection) -> Rig:
    """Build the rig under ``parent`` and put the splats, with their provenance, into the .blend."""
    from .avatar_parts import avatar_parts

    return add_avatar(avatar_parts(avatar), name, parent)


def add_avatar(parts: AvatarParts, name: str, parent: bpy.types.Collection) -> Rig:
    """The part of :func:`import_avatar` that only Blender's main thread may do. All of it happens, or nothing."""
    with all_or_nothing() as made:
        splats = store_splats(parts.splats, name)
        made.append(splats)
        splats[KEPT] = parts.kept
        splats["provenance"] = parts.provenance  # for people to read
        splats["licence"] = parts.rig.head.licence
        rig = build_rig(parts.rig, name, parent)
        made += [rig.collection, rig.mesh.data, rig.mesh, rig.armature.data, rig.armature]
        bind_splats(rig.mesh.data, splats)
        # The splats are what one wants to see; the mesh stays there to be selected and keyed, and casts shadows
        rig.mesh.display_type = "BOUNDS"
        rig.mesh.visible_camera = False
    return rig


def make_active(mesh: bpy.types.Object, view_layer: bpy.types.ViewLayer) -> None:
    """Select the head alone, so that the panels are about it; nothing where its collection is excluded."""
    before = list(view_layer.objects.selected)
    try:
        # Asked first: view_layer.objects does not know yet, in a window, what has just been linked
        mesh.select_set(True, view_layer=view_layer)
    except RuntimeError:
        return
    for item in before:
        if item != mesh:
            item.select_set(False, view_layer=view_layer)
    view_layer.objects.active = mesh


class HEADSTUDIO_OT_import_avatar(bpy.types.Operator, ImportHelper):
    """Import a HeadStudio avatar as a mesh with shape keys, an armature and splats"""

    bl_idname = "import_scene.headstudio_avatar"
    bl_label = "Import HeadStudio Avatar"
    bl_options = {"REGISTER", "UNDO"}

    filename_ext = ".npz"
    filter_glob: bpy.props.StringProperty(default=f"*{ENDING}", options={"HIDDEN"})
    directory: bpy.props.StringProperty(subtype="DIR_PATH", options={"HIDDEN", "SKIP_SAVE"})
    files: bpy.props.CollectionProperty(type=bpy.types.OperatorFileListElement, options={"HIDDEN", "SKIP_SAVE"})
    frame: bpy.props.BoolProperty(
        name="Frame in Views", default=True, description="Move 3D views in which the avatar would hardly be seen to it"
    )

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Import every file that was chosen; one that cannot be read is reported and keeps none of the others out."""
        from ..engine.avatar.file import load_avatar

        imported = 0
        for path in self._paths():
            try:
                avatar = load_avatar(path)
            except UserError as error:
                self.report({"ERROR"}, str(error))
                continue
            rig = import_avatar(avatar, path.name.removesuffix(ENDING), context.collection)
            make_active(rig.mesh, context.view_layer)
            if self.frame:
                framing.show(rig.mesh, context.window_manager)
            self.report({"INFO"}, f"Imported {len(avatar.splats):,} splats on {rig.mesh.name}")
            imported += 1
        return {"FINISHED"} if imported else {"CANCELLED"}

    def _paths(self) -> list[Path]:
        names = [item.name for item in self.files if item.name]
        paths = [os.path.join(self.directory, name) for name in names] or [self.filepath]
        return [Path(bpy.path.abspath(path)) for path in paths]

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if self.filepath or any(item.name for item in self.files):  # dropped on the window
            return self.execute(context)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}


class HEADSTUDIO_FH_avatar(bpy.types.FileHandler):
    bl_idname = "HEADSTUDIO_FH_avatar"
    bl_label = "HeadStudio Avatar"
    bl_import_operator = "import_scene.headstudio_avatar"
    bl_file_extensions = ".npz"

    @classmethod
    def poll_drop(cls, context: bpy.types.Context) -> bool:
        return context.area is not None and context.area.type in {"VIEW_3D", "OUTLINER"}


def menu_entry(menu: bpy.types.Menu, _context: bpy.types.Context) -> None:
    menu.layout.operator(HEADSTUDIO_OT_import_avatar.bl_idname, text=f"HeadStudio Avatar ({ENDING})")
