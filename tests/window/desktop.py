"""A screen without a monitor, its mouse and keyboard, pictures of it, and a Blender whose window fills it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ENGINE = Path(sys.executable).with_name("headstudio")
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


def new_user(executable: str, folder: Path) -> dict[str, str]:
    """A user who has nothing but the extension, built from this checkout; returns the environment that makes it so."""
    (folder / "user").mkdir()
    environment = {
        "BLENDER_USER_RESOURCES": str(folder / "user"),
        "HOME": str(folder),
        "HEADSTUDIO_ENGINE": str(ENGINE),
    }
    built = _output([sys.executable, ROOT / "build_addon.py", "--output-folder", folder], environment={})
    install = ["--command", "extension", "install-file", "-r", "user_default", "-e", built.split()[-1]]
    _output([executable, *install], environment)
    return environment


def _output(command: list, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


class Desktop:
    """Xvfb with its mouse and keyboard; a context manager. ``width`` and ``height`` are in pixels."""

    def __init__(self, width: int = 1280, height: int = 960):
        self.width, self.height = width, height

    def __enter__(self) -> Desktop:
        read, write = os.pipe()
        command = ["Xvfb", "-displayfd", str(write), "-nolisten", "tcp"]
        command += ["-screen", "0", f"{self.width}x{self.height}x24"]
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

    def click(self, count: int = 1) -> None:
        self._run("xdotool", "click", "--repeat", count, "--delay", 60, 1)

    def button(self, down: bool) -> None:
        self._run("xdotool", "mousedown" if down else "mouseup", 1)

    def move_by(self, dx: int) -> None:
        self._run("xdotool", "mousemove_relative", "--", dx, 0)

    def key(self, *names: str) -> None:
        self._run("xdotool", "key", "--delay", 60, *names)

    def type(self, text: str) -> None:
        self._run("xdotool", "type", "--delay", 30, text)

    def picture(self, path: Path) -> Path:
        self._run("import", "-window", "root", path)
        return path


class Blender:
    """A Blender with a window; a context manager. ``folder`` is where the driver's questions and answers lie."""

    def __init__(self, executable: str, desktop: Desktop, folder: Path, environment: dict[str, str]):
        self.desktop, self.folder = desktop, folder
        self._environment = {**desktop.environment, **environment}
        self._executable, self._count = executable, 0

    def __enter__(self) -> Blender:
        self.folder.mkdir(parents=True)
        driver = Path(__file__).with_name("driver.py")
        size = [self.desktop.width, self.desktop.height]
        command = [self._executable, "-p", 0, 0, *size, "--python", driver, "--", self.folder]
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

    def ask(self, expression: str, seconds: float = 300) -> Any:
        """The value of a Python expression in Blender's main thread, by way of JSON.

        All mouse and keyboard input that was sent before has been acted on by then.
        """
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
        answer.unlink()  # the driver looks through the folder a hundred times a second
        assert "error" not in found, f"{expression}\n{found['error']}"
        return found["value"]

    def until(self, expression: str, seconds: float = 30) -> Any:
        """Ask again and again; returns the first answer that is true."""
        over = time.monotonic() + seconds
        while not (answer := self.ask(expression)):
            assert time.monotonic() < over, f"Not within {seconds} s: {expression}"
            time.sleep(0.2)
        return answer

    def do(self, act: Callable[[], object], expression: str, tries: int = 3) -> Any:
        """Act, and see by ``expression`` that it took; where it did not, act again. Returns the answer."""
        for _ in range(tries - 1):
            act()
            with contextlib.suppress(AssertionError):
                return self.until(expression, seconds=20)
        act()
        return self.until(expression, seconds=20)

    def drag(self, dx: int, steps: int = 10) -> None:
        """Press, go about ``dx`` pixels to the right, let go; Blender sees each step, or it would be a click to it."""
        self.desktop.button(down=True)
        for _ in range(steps):
            self.ask("None")
            self.desktop.move_by(round(dx / steps))
        self.ask("None")
        self.desktop.button(down=False)

    def picture(self, path: Path) -> Path:
        """What the window shows, once everything that has changed is drawn."""
        before = self.ask("redraw()")
        self.until(f"len(drawn) > {before}", seconds=120)
        return self.desktop.picture(path)
