"""The Blender that the tests run in, a bpy module or an executable, and commands for what they start beside it.

In an executable (tools/test_in_blender.py) ``sys.executable`` is a plain Python without bpy, torch or pip. Where that
tool has set them, HEADSTUDIO_PYTHON and HEADSTUDIO_ENGINE name the Python that has the engine, and its command.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_VENV = ROOT / ".venv" / "bin"


def _executable() -> str:
    """An executable has loaded bpy before any test; the module waits until a fixture imports it."""
    bpy = sys.modules.get("bpy")
    return "" if bpy is None or bpy.app.module else bpy.app.binary_path


EXECUTABLE = _executable()  # empty in a bpy module


def command(script: str, *arguments: object) -> list[str]:
    """Starts another such Blender with a script, whose ``sys.argv[1:]`` are the arguments."""
    words = [str(argument) for argument in arguments]
    if not EXECUTABLE:
        return [sys.executable, "-c", script, *words]
    # There sys.argv is Blender's whole command line
    own_arguments = 'import sys\nsys.argv[1:] = sys.argv[sys.argv.index("--") + 1 :]\n'
    options = ["-b", "--factory-startup", "--python-exit-code", "1"]
    return [EXECUTABLE, *options, "--python-expr", own_arguments + script, "--", *words]


def engine() -> str:
    """The command ``headstudio`` of the environment that has torch."""
    if EXECUTABLE:
        return os.environ.get("HEADSTUDIO_ENGINE") or str(_VENV / "headstudio")
    beside = Path(sys.executable).with_name("headstudio")
    return str(beside if beside.is_file() else _VENV / "headstudio")


def engine_python() -> str:
    """The Python of the environment that has torch."""
    if importlib.util.find_spec("torch"):
        return sys.executable
    return os.environ.get("HEADSTUDIO_PYTHON") or str(_VENV / "python")


def build_python() -> str:
    """A Python that has pip and Blender's extension tool."""
    return engine_python() if EXECUTABLE else sys.executable
