"""From the prompt to the .ply in a real window, by mouse and keyboard; a picture of every stage in out/window.

All that is done is done by xdotool. Blender's Python only says what is under the mouse and what has come of it; the
sidebar's tab alone is chosen by script, because tabs are no buttons that the mouse could be sent to.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData
from window.desktop import Blender
from window.sidebar import Sidebar

PROMPT = "a clown with green hair"
NAME = "a-clown-with-green-hair"
STEPS = 110  # the preset draft takes snapshots at 50 and 100
KEYED = 10  # the frame with the open jaw


class Artist:
    """The keys and the pictures that the stages share."""

    def __init__(self, blender: Blender, pictures: Path):
        self.blender, self.desktop, self.sidebar = blender, blender.desktop, Sidebar(blender)
        self._pictures, self._stages = pictures, count(1)

    def picture(self, name: str) -> Path:
        """Keep a picture of the window."""
        return self.blender.picture(self._pictures / f"{next(self._stages):02d}-{name}.png")

    def viewport_picture(self, name: str) -> np.ndarray:  # [H, W, 3] of 0 to 255
        """Keep a picture of the window; returns what it shows in the middle of the 3D viewport, free of panels."""
        left, top, width, height = self._viewport()
        x, y = left + width // 4, top + height // 4
        with Image.open(self.picture(name)) as image:
            return np.asarray(image.convert("RGB").crop((x, y, x + width // 3, y + height // 2)), np.float32)

    def press(self, keys: str, took: str) -> None:
        """Press keys over the 3D viewport; ``took`` is true in Blender once they have had their effect."""
        self._over_viewport()
        self.blender.do(lambda: self.desktop.key(*keys.split()), took)

    def zoom(self, key: str, enough: str) -> None:
        while not self.blender.ask(enough):
            distance = self.blender.ask("view().view_distance")
            self.press(key, took=f"abs(view().view_distance / {distance} - 1) > 0.1")

    def go_to_frame(self, frame: int) -> None:
        def step() -> None:
            way = frame - self.blender.ask("bpy.context.scene.frame_current")
            self.desktop.key(*["Right" if way > 0 else "Left"] * abs(way))

        self._over_viewport()
        self.blender.do(step, f"bpy.context.scene.frame_current == {frame}")

    def _over_viewport(self) -> None:
        left, top, width, height = self._viewport()
        self.desktop.move(left + 0.3 * width, top + 0.6 * height)

    def _viewport(self) -> tuple[int, int, int, int]:
        return self.blender.ask("rectangle('VIEW_3D', 'WINDOW')")


def share_of_colour(picture: np.ndarray) -> float:
    """The share of pixels that are not grey."""
    return float((np.ptp(picture, axis=-1) > 24).mean())


@pytest.fixture(scope="module")
def tiny_prior(tmp_path_factory) -> Path:
    from support.tiny_prior import write_tiny_prior

    return write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_artist_makes_animates_renders_and_exports_an_avatar(desktop, pictures, blender, tiny_prior, tmp_path):
    artist = Artist(blender, pictures)
    asked = _generate(artist, tiny_prior)
    still = _finish(artist, asked)
    opened = _key_the_jaw(artist, still)
    _play(artist)
    artist.go_to_frame(KEYED)
    assert blender.ask("slider('jawOpen')") == pytest.approx(opened, abs=1e-6)
    _render(artist, tmp_path)
    job = next(blender.folder.parent.rglob(f"{NAME}.avatar.npz"))
    _export(artist, job, opened, tmp_path)
    assert "Traceback" not in blender.log, blender.log


def _generate(artist: Artist, prior: Path) -> np.ndarray:
    """Ask for an avatar; returns the viewport before there is one."""
    sidebar = artist.sidebar
    artist.press("Delete", took="'Cube' not in bpy.data.objects")  # the default cube, which is selected
    artist.press("KP_1", took="not view().is_perspective")
    artist.zoom("KP_Add", enough="view().view_distance < 0.7")  # metres
    artist.press("n", took="open_tab('HeadStudio')")
    sidebar.write("headstudio.prompt", PROMPT)
    sidebar.write("headstudio.steps", str(STEPS))
    sidebar.write("headstudio.prior", str(prior))
    empty = artist.viewport_picture("asked")
    assert share_of_colour(empty) < 0.02
    sidebar.click("headstudio.generate", took="jobs()")
    return empty


def _finish(artist: Artist, empty: np.ndarray) -> np.ndarray:
    """Watch the preview form until the avatar is there; returns the viewport with it."""
    blender = artist.blender
    first = blender.until("[each.data.headstudio.splats.session_uid for each in previews()]", seconds=600)
    formed = artist.viewport_picture("preview")
    assert share_of_colour(formed) > share_of_colour(empty) + 0.05
    state = "[each.data.headstudio.splats.session_uid for each in previews()]"
    blender.until(f"{state} != {first}", seconds=600)
    artist.picture("preview-later")
    blender.until("heads() and not previews()", seconds=600)
    assert blender.ask("[head.name for head in heads()]") == [NAME]
    blender.until(f"bpy.context.view_layer.objects.active.name == {NAME!r}")  # nothing else was selected
    artist.press("KP_Decimal", took="view().view_distance < 0.7")
    still = artist.viewport_picture("avatar")
    assert share_of_colour(still) > share_of_colour(empty) + 0.05
    return still


def _key_the_jaw(artist: Artist, still: np.ndarray) -> float:
    """Key the rest at frame 1 and, with the slider dragged, the open jaw at frame 10; returns how far it is open."""
    blender, sidebar = artist.blender, artist.sidebar
    sidebar.close_panel("headstudio.prompt")
    sidebar.write("headstudio_expressions.search", "jaw open")
    sidebar.click("headstudio.key_expression", took="keyframes('jawOpen') == [(1, 0)]", across=0.2)
    artist.go_to_frame(KEYED)
    sidebar.drag('key_blocks["jawOpen"].value', 120, took="slider('jawOpen') > 0.1", across=0.3)
    opened = blender.ask("slider('jawOpen')")
    moved = artist.viewport_picture("slider")
    assert np.abs(moved - still).max(-1).mean() > 1  # the splats have gone with the jaw
    sidebar.click("headstudio.key_expression", took="len(keyframes('jawOpen')) == 2", across=0.2)
    keyed = np.array(blender.ask("keyframes('jawOpen')"))
    np.testing.assert_allclose(keyed, [(1, 0), (KEYED, opened)], atol=1e-6)
    artist.go_to_frame(5)
    assert 0.02 < blender.ask("slider('jawOpen')") < opened - 0.02
    return opened


def _play(artist: Artist) -> None:
    blender = artist.blender
    before = blender.ask("len(drawn)")
    artist.press("space", took="bpy.context.screen.is_animation_playing")
    blender.until(f"len(set(drawn[{before}:])) > 6", seconds=120)
    artist.picture("playing")
    artist.press("space", took="not bpy.context.screen.is_animation_playing")
    artist.press("shift+Left", took="bpy.context.scene.frame_current == 1")


def _render(artist: Artist, folder: Path) -> None:
    blender, sidebar = artist.blender, artist.sidebar
    artist.zoom("KP_Subtract", enough="view().view_distance > 0.8")  # all of the head shall be in the picture
    artist.press("ctrl+alt+KP_0", took="view().view_perspective == 'CAMERA'")  # the camera comes to where one stands
    sidebar.open_panel("headstudio.use_engine", below="keying_set")
    sidebar.click("headstudio.use_engine", took="bpy.context.scene.render.engine == 'HEADSTUDIO'")
    artist.picture("ready-to-render")
    artist.press("F12", took="rendered or bpy.app.is_job_running('RENDER')")
    blender.until("rendered and not bpy.app.is_job_running('RENDER')", seconds=300)
    artist.desktop.key("Home")  # all of the picture
    artist.picture("rendered")
    with Image.open(blender.ask(f"save_rendered({str(folder / 'rendered.png')!r})")) as image:
        assert image.size == (1920, 1080)
        picture = np.asarray(image.convert("RGB"), np.float32)
    assert 0.03 < share_of_colour(picture) < 0.9
    blender.do(lambda: artist.desktop.key("Escape"), "'VIEW_3D' in area_types()")


def _export(artist: Artist, avatar: Path, opened: float, folder: Path) -> None:
    """The .ply from the file browser is what the engine's own command makes of the avatar with this slider."""
    blender = artist.blender
    artist.sidebar.click("export_scene.headstudio_ply", took="file_browser()")
    written = Path(blender.ask("file_browser()"))
    assert written.name == f"{NAME}.ply"
    artist.picture("export")
    exported = f"os.path.exists({str(written)!r}) and not file_browser()"
    blender.do(lambda: artist.desktop.key("Return"), exported)
    artist.picture("exported")
    engine = [Path(sys.executable).with_name("headstudio"), "pose", avatar, "--set", f"jawOpen={opened}"]
    subprocess.run([str(part) for part in (*engine, "--out", folder / "engine.ply")], check=True, timeout=300)
    got, wanted = (PlyData.read(path)["vertex"] for path in (written, folder / "engine.ply"))
    assert len(got) == blender.ask("len(heads()[0].data.headstudio.splats.vertices)")
    assert [each.name for each in got.properties] == [each.name for each in wanted.properties]
    for name in "xyz":
        np.testing.assert_allclose(got[name], wanted[name], atol=1e-5)  # metres
