"""The window tests want a Blender executable, named by the environment variable BLENDER, and a screen to put it on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from window.desktop import ROOT, TOOLS, Blender, Desktop, new_user


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What the screen showed when a test failed."""
    report = yield
    if report.failed and {"desktop", "pictures"} <= set(item.funcargs):
        picture = item.funcargs["desktop"].picture(item.funcargs["pictures"] / f"failed-{report.when}.png")
        report.sections.append(("The window", f"A picture of it: {picture}"))
    return report


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where the pictures of all stages are kept, as artefacts."""
    folder = ROOT / "out" / "window"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    return folder


@pytest.fixture(scope="session")
def executable() -> str:
    found = shutil.which(os.environ.get("BLENDER", ""))
    if found is None:
        pytest.skip("no Blender with a window: run BLENDER=/path/to/blender make test")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"the window test needs {', '.join(missing)} (on Debian: apt install xvfb xdotool imagemagick)")
    return found


@pytest.fixture(scope="session")
def desktop(executable):
    with Desktop() as desktop:
        yield desktop


@pytest.fixture(scope="session")
def blender(executable, desktop, tmp_path_factory):
    """A new user's Blender with its window, into which the built extension has been installed."""
    base = tmp_path_factory.mktemp("window")
    environment = new_user(executable, base)
    with Blender(executable, desktop, base / "blender", environment) as blender:
        blender.until("drawn", seconds=300)
        yield blender
