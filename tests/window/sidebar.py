"""The sidebar of the 3D viewport, as the mouse finds it: whatever is under it, however long the panels are."""

from __future__ import annotations

import math

from window.desktop import Blender

STEP = 9  # pixels; a button is about 20 high


class Sidebar:
    """Finds a button by sending the mouse down the panel and asking what it is over."""

    def __init__(self, blender: Blender):
        self.blender, self.desktop = blender, blender.desktop

    def look(
        self, wanted: str, across: float = 0.7, start: float = 0.0, stop: float = math.inf
    ) -> tuple[float | None, list[str]]:
        """Put the mouse on the first button whose operator or property holds ``wanted``.

        Returns its y (None if there is no such button) and what the mouse came over on its way. ``across`` is where
        to look, as a share of the panel's width; ``start`` and ``stop`` bound y.
        """
        left, top, width, height = self.blender.ask("rectangle('VIEW_3D', 'UI')")
        x, y, seen = left + across * (width - 24), max(start, top + 4), []
        while y < min(stop, top + height - 4):
            found = self._under(x, y)
            if wanted in found:
                if wanted in self._under(x, y + 4):  # further inside
                    return y + 4, seen
                self._under(x, y)
                return y, seen
            if found and found not in seen:
                seen.append(found)
            y += STEP
        return None, seen

    def _under(self, x: float, y: float) -> str:
        self.desktop.move(x, y)
        return self.blender.ask("under_mouse('VIEW_3D', 'UI')")

    def over(self, wanted: str, **where: float) -> float:
        """Put the mouse on the button ``wanted``, as ``look`` does; returns its y."""
        y, seen = self.look(wanted, **where)
        assert y is not None, f"No button {wanted} in the sidebar; there are {seen}"
        return y

    def click(self, wanted: str, took: str, **where: float) -> None:
        """Click the button ``wanted``; ``took`` is true in Blender once that has had its effect."""
        self.over(wanted, **where)
        self.blender.do(self.desktop.click, took)

    def write(self, wanted: str, text: str) -> None:
        """Click into the field of a scene's property, replace what it holds, confirm."""

        def fill() -> None:
            self.desktop.key("Escape")  # out of a field that an attempt before may have left open
            self.over(wanted)
            self.desktop.click(2)  # number fields want a double click, in text fields it chooses a word
            self.desktop.key("ctrl+a")
            self.desktop.type(text)
            self.desktop.key("Return")

        self.blender.do(fill, f"str(bpy.context.scene.{wanted}) == {text!r}")

    def drag(self, wanted: str, dx: int, took: str, **where: float) -> None:
        """Drag the slider ``wanted`` by ``dx`` pixels."""

        def pull() -> None:
            self.desktop.key("Escape")
            self.over(wanted, **where)
            self.blender.drag(dx)

        self.blender.do(pull, took)

    def close_panel(self, holds: str) -> None:
        """Close the sidebar's first panel, which has the button ``holds``, by a click on its header."""
        left, top, width, _height = self.blender.ask("rectangle('VIEW_3D', 'UI')")
        for _ in range(3):
            self.desktop.move(left + width / 3, top + 14)
            self.desktop.click()
            if self.look(holds, stop=top + 200)[0] is None:
                return
        raise AssertionError(f"The panel with {holds} does not close")

    def open_panel(self, holds: str, below: str) -> None:
        """Open the panel that has the button ``holds``: its header, which no question finds, comes after ``below``."""
        left, _, width, _ = self.blender.ask("rectangle('VIEW_3D', 'UI')")
        last = self.over(below)
        for down in (22, 29, 36):
            self.desktop.move(left + width / 3, last + down)
            self.desktop.click()
            if self.look(holds, start=last + down, stop=last + down + 150)[0] is not None:
                return
        raise AssertionError(f"No panel with {holds} opens below {below}")
