"""The job at work at the foot of Blender's window, where one sees it whatever the sidebar shows."""

from __future__ import annotations

import bpy

from . import jobs


def register() -> None:
    bpy.types.STATUSBAR_HT_header.append(draw)


def unregister() -> None:
    bpy.types.STATUSBAR_HT_header.remove(draw)


def draw(header: bpy.types.Header, _context: bpy.types.Context) -> None:
    entry = jobs.at_work()
    if entry is None:
        return
    row = header.layout.row(align=True)
    row.ui_units_x = 12
    row.progress(factor=entry.share, text=f"HeadStudio: {entry.text}")
