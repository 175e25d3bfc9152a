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
from bpy_extras import anim_utils

FOLDER = Path(sys.argv[sys.argv.index("--") + 1])
# Blender's loop reads input, runs timers and acts on what it read, in some order: an answer that comes in a question's
# third round comes after all input that was sent before the question has been acted on.
ROUNDS = 3
drawn: list[int] = []  # the frame that was shown, for each time that a viewport, a picture or a file browser was drawn
rendered: list[int] = []  # the frames of finished renders
_rounds: dict[Path, int] = {}


def _regions() -> list[tuple[bpy.types.Area, bpy.types.Region]]:
    screen = bpy.context.window_manager.windows[0].screen
    return [(area, region) for area in screen.areas for region in area.regions]


def area_types() -> list[str]:
    return [area.type for area in bpy.context.window_manager.windows[0].screen.areas]


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


def redraw() -> int:
    """Have all of the window drawn; the number of drawings before that."""
    for _, region in _regions():
        region.tag_redraw()
    return len(drawn)


def in_viewport(operator, **properties) -> str:
    """Call an operator as a button in the 3D viewport does."""
    window = bpy.context.window_manager.windows[0]
    area, region = next((a, r) for a, r in _regions() if (a.type, r.type) == ("VIEW_3D", "WINDOW"))
    with bpy.context.temp_override(window=window, area=area, region=region):
        return str(operator(**properties))


def open_tab(category: str) -> bool:
    """Choose a tab of the sidebar, whose tabs are no buttons that the mouse could be sent to. True once it is open."""
    region = next(region for area, region in _regions() if (area.type, region.type) == ("VIEW_3D", "UI"))
    if region.active_panel_category == "UNSUPPORTED" or region.width < 50:  # not drawn yet
        return False
    if region.active_panel_category != category:
        region.active_panel_category = category
        region.tag_redraw()
    return region.active_panel_category == category


def view() -> bpy.types.RegionView3D:
    """How the 3D viewport looks at the scene."""
    screen = bpy.context.window_manager.windows[0].screen
    return next(area.spaces.active.region_3d for area in screen.areas if area.type == "VIEW_3D")


def jobs() -> list[str]:
    """The jobs in the panel's list."""
    return [job.name for job in bpy.context.window_manager.headstudio.jobs]


def previews() -> list[bpy.types.Object]:
    """The unfinished avatars in the scene."""
    return [item for item in bpy.data.objects if "headstudio_job" in item]


def heads() -> list[bpy.types.Object]:
    """The avatars' meshes, finished and rigged."""
    return [item for item in bpy.data.objects if item.type == "MESH" and item.data.shape_keys is not None]


def slider(name: str) -> float:
    return heads()[0].data.shape_keys.key_blocks[name].value


def keyframes(name: str) -> list[tuple[float, float]]:
    """Frame and value of each keyframe of a slider."""
    animation = heads()[0].data.shape_keys.animation_data
    if animation is None or animation.action is None:
        return []
    bag = anim_utils.action_get_channelbag_for_slot(animation.action, animation.action_slot)
    curve = bag.fcurves.find(f'key_blocks["{name}"].value')
    return [tuple(key.co) for key in curve.keyframe_points] if curve is not None else []


def file_browser() -> str:
    """The file that an open file browser is about to write; nothing if there is none."""
    for area, _ in _regions():
        if area.type == "FILE_BROWSER" and area.spaces.active.params is not None:
            chosen = area.spaces.active.params
            return os.path.join(os.fsdecode(chosen.directory), chosen.filename)
    return ""


def save_rendered(path: str) -> str:
    bpy.data.images["Render Result"].save_render(path)
    return path


def _answer_questions() -> float:
    for question in sorted(FOLDER.glob("*.ask")):
        _rounds[question] = _rounds.get(question, 0) + 1
        if _rounds[question] < ROUNDS:
            continue
        del _rounds[question]
        try:
            found = {"value": eval(question.read_text(), globals())}
        except Exception:
            found = {"error": traceback.format_exc()}
        question.unlink()
        part = question.with_suffix(".part")
        part.write_text(json.dumps(found, default=str))
        os.replace(part, question.with_suffix(".answer"))
    return 0.01


def _note_drawing() -> None:
    drawn.append(bpy.context.scene.frame_current)


preferences = bpy.context.preferences.view
preferences.show_splash = False
# A second window would get no keyboard: there is no window manager that could give it the focus
preferences.render_display_type = preferences.filebrowser_display_type = "SCREEN"
for space in (bpy.types.SpaceView3D, bpy.types.SpaceImageEditor, bpy.types.SpaceFileBrowser):
    space.draw_handler_add(_note_drawing, (), "WINDOW", "POST_PIXEL")
bpy.app.handlers.render_complete.append(lambda scene, *_: rendered.append(scene.frame_current))
bpy.app.timers.register(_answer_questions, persistent=True)
