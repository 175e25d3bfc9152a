"""What all panels of the sidebar's tab HeadStudio share."""

from __future__ import annotations

import bpy

from .expressions import avatar_mesh


class SidebarPanel:
    """Mixed into a panel before ``bpy.types.Panel``: it stands in the 3D viewport's sidebar, in our tab."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "HeadStudio"


class AvatarPanel(SidebarPanel):
    """A panel about the active avatar, there as long as there is one."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return avatar_mesh(context) is not None
