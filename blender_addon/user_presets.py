"""Presets of expressions: the built-in ones, and the artist's own, one JSON file each among Blender's user presets.

The files may have been edited by hand or come from someone else, so what is read of them is checked.
"""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote, unquote

import bpy

from ..engine.avatar.atomic import atomic_write
from ..engine.errors import UserError
from ..engine.heads.expressions import PRESETS

FORMAT = 1
LONGEST_NAME = 60  # characters
LARGEST_FILE = 256 * 1024  # bytes
LARGEST_VALUE = 100.0  # far beyond any slider's end; not a number is not below it either


def folder() -> Path:
    """Where the artist's presets lie; it need not exist."""
    return Path(bpy.utils.user_resource("SCRIPTS", path="presets")) / "headstudio" / "expressions"


def own_names() -> list[str]:
    """The artist's presets by name, in alphabetical order."""
    try:
        return sorted((unquote(path.stem) for path in folder().glob("*.json")), key=str.lower)
    except OSError:
        return []  # a folder that may not be read is as good as empty; saving into it says why


def names() -> list[str]:
    return [*PRESETS, *(name for name in own_names() if name not in PRESETS)]


def load(name: str) -> dict[str, float]:
    """Sliders and their values. Raises ``UserError`` if there is no such preset or its file is damaged."""
    if name in PRESETS:
        return PRESETS[name]
    path = _path(name)
    hint = "Remove it, or save the preset again."
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise UserError(f"There is no expression preset {name!r}.") from None
    except OSError as error:
        raise UserError(f"The preset {path} cannot be read: {error.strerror or error}.") from error
    if len(text) > LARGEST_FILE:
        raise UserError(f"{path} is no expression preset: it is too large. {hint}")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"The preset {path} is damaged: {error}. {hint}") from error
    values = content.get("sliders") if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise UserError(f"{path} is no expression preset: it holds no sliders. {hint}")
    if content.get("format") != FORMAT:
        raise UserError(f"The preset {path} was written by another version of HeadStudio. Update the extension.")
    for slider, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST_VALUE:
            raise UserError(f"The preset {path} is damaged: the value of {slider} is no number of use. {hint}")
    return {slider: float(value) for slider, value in values.items()}


def save(name: str, values: dict[str, float], replace: bool = False) -> Path:
    """Write a preset. Raises ``UserError`` if the name does not do, is taken, or the file cannot be written."""
    name = name.strip()
    if not name or not name.isprintable():
        raise UserError("The preset needs a name.")
    if len(name) > LONGEST_NAME:
        raise UserError(f"The preset's name is too long: {len(name)} characters of at most {LONGEST_NAME}.")
    if name.lower() in {preset.lower() for preset in PRESETS}:
        raise UserError(f"{name!r} is a built-in preset. Choose another name.")
    path = _path(name)
    if path.exists() and not replace:
        raise UserError(f"There already is a preset {name!r}. Tick Replace to overwrite it, or choose another name.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Presets cannot be kept in {path.parent}: {error.strerror or error}.") from error
    with atomic_write(path) as file:
        file.write(json.dumps({"format": FORMAT, "sliders": values}, indent=1).encode())
    return path


def remove(name: str) -> None:
    """Delete one of the artist's presets. Raises ``UserError`` if it is not there or may not be deleted."""
    path = _path(name)
    try:
        path.unlink()
    except FileNotFoundError:
        raise UserError(f"You have no expression preset {name!r}.") from None
    except OSError as error:
        raise UserError(f"The preset {path} cannot be removed: {error.strerror or error}.") from error


def _path(name: str) -> Path:
    """The name's file: whatever a file name may not hold, such as slashes and a leading dot, is escaped."""
    return folder() / f"{quote(name, safe=' ').replace('.', '%2E')}.json"
