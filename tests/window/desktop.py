"""A screen without a monitor, its mouse and keyboard, pictures of it, and a Blender whose window fills it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 1280, 960
TOOLS = ("Xvfb", "xdotool", "import")  # the last is ImageMagick's


def end(process: subprocess.Popen) -> None:
    """End a process of ours, kindly and then not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


class Desktop:
    """Xvfb with its mouse and keyboard; a context manager."""

    def __enter__(self) -> Desktop:
        read, write = os.pipe()
        command = ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{WIDTH}x{HEIGHT}x24", "-nolisten", "tcp"]
        self._server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as file:
            number = file.readline().strip()  # ends with the server if that cannot start
        assert number, "Xvfb did not start"
        self.environment = {**os.environ, "DISPLAY": f":{number}"}
        return self

    def __exit__(self, *_) -> None:
        end(self._server)

    def _run(self, *command: object) -> None:
        subprocess.run([str(part) for part in command], env=self.environment, check=True, timeout=60)

    def move(self, x: float, y: float) -> None:
        # Two moves, for Blender takes up a button when the mouse comes to it
        self._run("xdotool", "mousemove", round(x) - 2, round(y), "mousemove", round(x), round(y))

    def click(self, button: int = 1) -> None:
        self._run("xdotool", "click", button)

    def key(self, *names: str) -> None:
        self._run("xdotool", "key", "--delay", 60, *names)

    def type(self, text: str) -> None:
        self._run("xdotool", "type", "--delay", 30, text)

    def picture(self, path: Path) -> None:
        self._run("import", "-window", "root", path)


class Blender:
    """A Blender with a window; a context manager. ``folder`` is where the driver's questions and answers lie."""

    def __init__(self, executable: str, desktop: Desktop, folder: Path, environment: dict[str, str]):
        self.desktop, self.folder = desktop, folder
        self._environment = {**desktop.environment, **environment}
        self._executable, self._count = executable, 0

    def __enter__(self) -> Blender:
        self.folder.mkdir(parents=True)
        driver = Path(__file__).with_name("driver.py")
        command = [self._executable, "-p", "0", "0", str(WIDTH), str(HEIGHT), "--python", driver, "--", self.folder]
        self._log = (self.folder / "blender.log").open("w")
        self._process = subprocess.Popen(
            [str(part) for part in command],
            env=self._environment,
            cwd=self.folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_) -> None:
        if self._process.poll() is None:  # Blender asks whether to save when it is told kindly
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)
        self._log.close()

    @property
    def log(self) -> str:
        return (self.folder / "blender.log").read_text(errors="replace")

    def ask(self, expression: str, seconds: float = 60) -> Any:
        """The value of a Python expression in Blender's main thread, by way of JSON."""
        self._count += 1
        question = self.folder / f"{self._count:05d}.ask"
        part = question.with_suffix(".new")
        part.write_text(expression)
        part.replace(question)
        answer, over = question.with_suffix(".answer"), time.monotonic() + seconds
        while not answer.exists():
            assert self._process.poll() is None, f"Blender ended with {self._process.returncode}:\n{self.log[-3000:]}"
            assert time.monotonic() < over, f"Blender has not answered in {seconds} s: {expression}\n{self.log[-3000:]}"
            time.sleep(0.01)
        found = json.loads(answer.read_text())
        assert "error" not in found, f"{expression}\n{found['error']}"
        return found["value"]

    def until(self, expression: str, seconds: float, say: str = "") -> Any:
        """Ask again and again; returns the first answer that is true."""
        over = time.monotonic() + seconds
        while not (answer := self.ask(expression)):
            detail = self.ask(say) if say and time.monotonic() > over else ""
            assert time.monotonic() < over, f"Not within {seconds} s: {expression} {detail}"
            time.sleep(0.1)
        return answer


class Sidebar:
    """The sidebar of the 3D viewport: finds a button by sending the mouse down the panel and asking what it is over."""

    STEP = 9  # pixels; a button is about 20 high

    def __init__(self, blender: Blender):
        self.blender, self.desktop = blender, blender.desktop

    def under_mouse(self) -> str:
        return self.blender.ask("under_mouse('VIEW_3D', 'UI')")

    def over(self, wanted: str, across: float = 0.7, start: float = 0.0) -> float:
        """Put the mouse on the first button whose operator or property holds ``wanted``; returns its y.

        ``across`` is where to look, as a share of the panel's width; ``start`` the first y.
        """
        left, top, width, height = self.blender.ask("rectangle('VIEW_3D', 'UI')")
        seen: list[str] = []
        y = max(start, top + 4)
        while y < top + height - 4:
            self.desktop.move(left + across * (width - 24), y)
            time.sleep(0.04)
            found = self.under_mouse()
            if wanted in found:
                self.desktop.move(left + across * (width - 24), y + 4)
                if wanted in self.under_mouse():
                    return y + 4
            if found and found not in seen:
                seen.append(found)
            y += self.STEP
        raise AssertionError(f"No button {wanted} in the sidebar; there are {seen}")

    def click(self, wanted: str, **where: float) -> float:
        y = self.over(wanted, **where)
        self.desktop.click()
        return y

    def write(self, wanted: str, text: str) -> None:
        """Click into a field, replace what it holds, confirm."""
        self.over(wanted)
        self.desktop.click()
        self.desktop.click()  # number fields want a double click, in text fields it chooses a word
        self.desktop.key("ctrl+a")
        self.desktop.type(text)
        self.desktop.key("Return")
