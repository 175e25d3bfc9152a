"""From the prompt to the rigged avatar in a real window, by mouse and keyboard; a picture of every stage in out/window.

All that is done is done by xdotool. Blender's Python only says what is under the mouse and what has come of it; the
sidebar's tab alone is chosen by script, because tabs are no buttons that the mouse could be sent to.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from window.desktop import Sidebar

PROMPT = "a clown with green hair"
NAME = "a-clown-with-green-hair"
STEPS = 60


@pytest.fixture(scope="module")
def tiny_prior(tmp_path_factory) -> Path:
    from support.tiny_prior import write_tiny_prior

    return write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")


@pytest.mark.slow
def test_an_artist_makes_an_avatar(blender, tiny_prior, pictures):
    desktop, sidebar = blender.desktop, Sidebar(blender)
    stages = iter(range(1, 100))

    def picture(name: str) -> None:
        time.sleep(1)  # what has changed is drawn
        desktop.picture(pictures / f"{next(stages):02d}-{name}.png")

    def over_viewport() -> None:
        left, top, width, height = blender.ask("rectangle('VIEW_3D', 'WINDOW')")
        desktop.move(left + 0.3 * width, top + 0.6 * height)

    over_viewport()
    desktop.key("Delete")  # the default cube, which is selected
    blender.until("'Cube' not in bpy.data.objects", seconds=20)
    desktop.key("n")
    blender.until("open_tab('HeadStudio')", seconds=20)
    time.sleep(1)

    sidebar.write("headstudio.prompt", PROMPT)
    sidebar.write("headstudio.steps", str(STEPS))
    sidebar.write("headstudio.prior", str(tiny_prior))
    asked = blender.ask("[getattr(bpy.context.scene.headstudio, n) for n in ('prompt', 'steps', 'prior')]")
    assert asked == [PROMPT, STEPS, str(tiny_prior)]
    picture("asked")

    sidebar.click("headstudio.generate")
    blender.until("previews() or heads()", seconds=240)  # a busy core takes ten times as long
    picture("preview")
    blender.until("heads() and not previews()", seconds=120)
    assert blender.ask("[head.name for head in heads()]") == [NAME]
    over_viewport()
    desktop.key("KP_1", "KP_Decimal")
    picture("avatar")
