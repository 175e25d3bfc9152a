"""Runs inside Blender: answers a test's questions about the window, by files, from a timer. It does nothing by itself.

``blender --python driver.py -- FOLDER``: each ``NUMBER.ask`` in the folder is a Python expression, whose value (or
error) goes to ``NUMBER.answer`` as JSON. The artist's part, mouse and keyboard, comes from outside.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

import bpy

FOLDER = Path(sys.argv[sys.argv.index("--") + 1])
drawn = []  # a 0 for each time that the 3D viewport has been drawn


def _regions() -> list[tuple[bpy.types.Area, bpy.types.Region]]:
    screen = bpy.context.window_manager.windows[0].screen
    return [(area, region) for area in screen.areas for region in area.regions]


def rectangle(area_type: str, region_type: str) -> tuple[int, int, int, int]:
    """Left, top, width and height of a region, in pixels of the screen from its top left corner."""
    window = bpy.context.window_manager.windows[0]
    found = [region for area, region in _regions() if area.type == area_type and region.type == region_type]
    region = max(found, key=lambda each: each.width * each.height)
    return region.x, window.height - region.y - region.height, region.width, region.height


def under_mouse(area_type: str, region_type: str) -> str:
    """What the mouse is over: an operator's call as Python, a property's path, or nothing."""
    window = bpy.context.window_manager.windows[0]
    area, region = next((a, r) for a, r in _regions() if (a.type, r.type) == (area_type, region_type))
    with bpy.context.temp_override(window=window, area=area, region=region):
        hovered = bpy.context.property
        if hovered is not None:
            return hovered[1]
        if bpy.ops.ui.copy_python_command_button.poll():
            bpy.ops.ui.copy_python_command_button()
            return bpy.context.window_manager.clipboard
    return ""


def open_tab(category: str) -> bool:
    """Choose a tab of the sidebar, whose tabs are no buttons that the mouse could be sent to. True once it is open."""
    region = next(region for area, region in _regions() if (area.type, region.type) == ("VIEW_3D", "UI"))
    if region.active_panel_category == "UNSUPPORTED" or region.width < 50:  # not drawn yet
        return False
    if region.active_panel_category != category:
        region.active_panel_category = category
        region.tag_redraw()
    return region.active_panel_category == category


def heads() -> list[bpy.types.Object]:
    """The avatars' meshes, finished and rigged."""
    return [item for item in bpy.data.objects if item.type == "MESH" and item.data.shape_keys is not None]


def previews() -> list[bpy.types.Object]:
    """The unfinished avatars in the scene."""
    return [item for item in bpy.data.objects if "headstudio_job" in item]


def _answer_questions() -> float:
    for question in sorted(FOLDER.glob("*.ask")):
        answer = question.with_suffix(".answer")
        if answer.exists():
            continue
        try:
            found = {"value": eval(question.read_text(), globals())}
        except Exception:
            found = {"error": traceback.format_exc()}
        part = question.with_suffix(".part")
        part.write_text(json.dumps(found, default=str))
        os.replace(part, answer)
    return 0.02


bpy.context.preferences.view.show_splash = False
bpy.types.SpaceView3D.draw_handler_add(lambda: drawn.append(0), (), "WINDOW", "POST_PIXEL")
bpy.app.timers.register(_answer_questions, persistent=True)
