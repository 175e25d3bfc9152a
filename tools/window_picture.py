"""Takes docs/window.png: Blender's window with an avatar in it that smiles on the timeline.

``BLENDER=/path/to/blender .venv/bin/python tools/window_picture.py AVATAR [--out PNG]``, with a file such as
``make demo`` leaves under out/demo/avatar. The extension is built from this checkout and installed for a new user, and
the screen is Xvfb's, as in the window test, whose tools this wants.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from window.desktop import Blender, Desktop, new_user  # noqa: E402
from window.sidebar import Sidebar  # noqa: E402

WIDTH, HEIGHT = 1200, 820  # pixels
KEYS = ((1, "neutral"), (12, "smile"), (30, "smile"), (42, "surprise"), (60, "neutral"))
SHOWN = 20  # a frame that smiles


def main(avatar: Path, out: Path, executable: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = new_user(executable, folder)
        with (
            Desktop(WIDTH, HEIGHT) as desktop,
            Blender(executable, desktop, folder / "blender", environment) as blender,
        ):
            blender.until("drawn", seconds=300)
            _arrange(blender, avatar)
            picture = blender.picture(folder / "window.png")
        with Image.open(picture) as image:
            image.convert("RGB").save(out, optimize=True)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def _arrange(blender: Blender, avatar: Path) -> None:
    """Import and key by the operators behind the menus and buttons; frame the head and open the tab by hand."""
    blender.ask("bpy.data.objects.remove(bpy.data.objects['Cube'])")
    blender.ask(f"in_viewport(bpy.ops.import_scene.headstudio_avatar, filepath={str(avatar)!r})")
    for frame, preset in KEYS:
        blender.ask(f"bpy.context.scene.frame_set({frame})")
        blender.ask(f"in_viewport(bpy.ops.headstudio.apply_preset, preset={preset!r})")
        blender.ask("in_viewport(bpy.ops.headstudio.key_expression)")
    blender.ask(f"bpy.context.scene.frame_set({SHOWN})")
    blender.ask("setattr(bpy.context.scene, 'frame_end', 72)")
    blender.ask("setattr(bpy.context.scene.headstudio_expressions, 'moved', True)")  # the sliders of the smile alone

    left, top, width, height = blender.ask("rectangle('VIEW_3D', 'WINDOW')")
    blender.desktop.move(left + 0.3 * width, top + 0.6 * height)
    blender.do(lambda: blender.desktop.key("KP_1"), "not view().is_perspective")
    blender.desktop.key("KP_6")  # a sixth of a right angle to the side
    blender.do(lambda: blender.desktop.key("KP_Decimal"), "view().view_distance < 0.7")
    framed = blender.ask("view().view_distance")
    blender.do(lambda: blender.desktop.key("KP_Subtract"), f"view().view_distance > {1.1 * framed}")  # hats are tall
    blender.do(lambda: blender.desktop.key("n"), "open_tab('HeadStudio')")
    Sidebar(blender).close_panel("headstudio.prompt")
    blender.desktop.move(left + 0.3 * width, top + 0.9 * height)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "window.png")
    options = parser.parse_args()
    program = shutil.which(os.environ.get("BLENDER", ""))
    if program is None:
        parser.error("the environment variable BLENDER names no Blender with a window")
    main(options.avatar.resolve(), options.out, program)
