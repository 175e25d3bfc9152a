"""Add-on preferences: where the engine is and where jobs are kept."""

from __future__ import annotations

from pathlib import Path

import bpy

PACKAGE = __package__.rpartition(".")[0]  # the extension itself: bl_ext.REPOSITORY.headstudio


class HeadStudioPreferences(bpy.types.AddonPreferences):
    bl_idname = PACKAGE

    engine: bpy.props.StringProperty(
        name="Engine",
        subtype="FILE_PATH",
        description="The headstudio command of the engine's environment. Empty: look for it",
    )
    jobs: bpy.props.StringProperty(
        name="Jobs", subtype="DIR_PATH", description="Folder in which jobs are kept. Empty: the extension's own"
    )

    def draw(self, _context: bpy.types.Context) -> None:
        self.layout.prop(self, "engine")
        self.layout.prop(self, "jobs")


def preferences(context: bpy.types.Context) -> HeadStudioPreferences:
    return context.preferences.addons[PACKAGE].preferences


def jobs_folder(context: bpy.types.Context) -> Path:
    """Where jobs are kept; it need not exist yet."""
    chosen = preferences(context).jobs
    if chosen:
        return Path(bpy.path.abspath(chosen)).absolute()
    return Path(bpy.utils.extension_path_user(PACKAGE, path="jobs"))
