"""The window tests want a Blender executable, named by the environment variable BLENDER, and a screen to put it on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from window.desktop import TOOLS, Blender, Desktop

ROOT = Path(__file__).resolve().parents[2]
ENGINE = Path(sys.executable).with_name("headstudio")


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where the pictures of all stages are kept, as artefacts."""
    folder = ROOT / "out" / "window"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def blender(tmp_path_factory):
    """A new user's Blender with its window, into which the built extension has been installed."""
    executable = shutil.which(os.environ.get("BLENDER", ""))
    if executable is None:
        pytest.skip("no Blender with a window: run BLENDER=/path/to/blender make test")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"the window test needs {', '.join(missing)} (on Debian: apt install xvfb xdotool imagemagick)")
    base = tmp_path_factory.mktemp("window")
    (base / "user").mkdir()
    environment = {
        "BLENDER_USER_RESOURCES": str(base / "user"),
        "HOME": str(base),
        "HEADSTUDIO_ENGINE": str(ENGINE),
    }
    build = [sys.executable, ROOT / "build_addon.py", "--output-folder", base]
    built = subprocess.run([str(part) for part in build], capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    install = [
        executable,
        "--command",
        "extension",
        "install-file",
        "-r",
        "user_default",
        "-e",
        built.stdout.split()[-1],
    ]
    installed = subprocess.run(
        install, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr
    with Desktop() as desktop, Blender(executable, desktop, base / "blender", environment) as blender:
        blender.until("drawn", seconds=120)
        yield blender
