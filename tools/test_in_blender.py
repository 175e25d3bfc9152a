"""Runs tests/blender inside the Blender executable that BLENDER names, with pytest-blender; `make test` calls it.

    BLENDER=/path/to/blender .venv/bin/python tools/test_in_blender.py [TESTS] [PYTEST'S OPTIONS]

Blender's Python has neither pytest nor the engine, and is left as it is: what the tests need lies in .blender-packages,
a folder for each version of Python, filled by this Python's pip the first time. pytest-blender lies there by itself,
because its plugin would take over every other run of pytest in .venv.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree, which

import pytest
from headstudio.heads.default_head import default_head

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ROOT / ".blender-packages"
RUNNER = ("pytest-blender==3.0.8",)
# Without what these require: numpy must stay Blender's own. The versions are those of the other runs, but for scipy,
# which is compiled: this Python's may not exist for Blender's.
PURE = ("pytest", "iniconfig", "packaging", "pluggy", "pygments", "pytest-timeout", "platformdirs", "plyfile")
COMPILED = ("scipy>=1.14",)


def main() -> int:
    executable = which(os.environ.pop("BLENDER", ""))
    if executable is None:
        sys.exit("BLENDER names no program: run BLENDER=/path/to/blender make test")
    os.chdir(ROOT)
    python_version = ask_version(executable)
    runner, packages = PACKAGES / "runner", PACKAGES / python_version
    fill(runner, RUNNER)
    fill(packages, [f"{name}=={version(name)}" for name in PURE] + list(COMPILED), python_version)
    link_engine(packages)
    # Its sources come in a wheel of 100 MB that nothing else needs there
    default_head(PACKAGES / "cache" / "headstudio")

    with tempfile.TemporaryDirectory(prefix="blender-user-") as user:
        # Of this environment, which has torch, pip and Blender's tool for extensions
        os.environ["HEADSTUDIO_PYTHON"] = sys.executable
        os.environ["HEADSTUDIO_ENGINE"] = str(Path(sys.executable).with_name("headstudio"))
        os.environ["XDG_CACHE_HOME"] = str(PACKAGES / "cache")
        os.environ["BLENDER_USER_RESOURCES"] = user
        sys.path.insert(0, str(runner))  # where pytest looks for plugins
        search = f"import sys; sys.path.insert(0, {str(packages)!r})"
        blender = ["--factory-startup", "--python-exit-code", "1", "--python-expr", search]
        # The plugin reads sys.argv itself
        arguments = sys.argv[1:]
        if not arguments or arguments[0].startswith("-"):
            arguments.insert(0, "tests/blender")
        arguments += ["-W", "ignore:config.inicfg is deprecated"]  # the plugin's own affair
        sys.argv = ["pytest", "--blender-executable", executable, *arguments, "--", *blender]
        return int(pytest.main())


def ask_version(executable: str) -> str:
    """The executable's Python, as 3.14."""
    question = "import sys; print('PYTHON', '%d.%d' % sys.version_info[:2], flush=True)"
    command = [executable, "-b", "--factory-startup", "--python-exit-code", "1", "--python-expr", question]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    answers = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("PYTHON ")]
    if done.returncode or not answers:
        sys.exit(f"{executable} cannot run a line of Python:\n{done.stdout}{done.stderr}")
    return answers[0]


def fill(folder: Path, requirements: list[str] | tuple[str, ...], python_version: str | None = None) -> None:
    """Put exactly these into ``folder``, if it does not hold them yet."""
    ready, wanted = folder / "ready.txt", "\n".join(requirements)
    if ready.is_file() and ready.read_text() == wanted:
        return
    print(f"installing {' '.join(requirements)} into {folder.relative_to(ROOT)} (once)", flush=True)
    rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps"]
    command += ["--only-binary=:all:", "--target", str(folder)]
    command += ["--python-version", python_version] if python_version else []
    if subprocess.run([*command, *requirements]).returncode:
        sys.exit("The packages for the tests inside Blender could not be installed; pip's message is above.")
    ready.write_text(wanted)


def link_engine(folder: Path) -> None:
    """The engine's import name, as pyproject.toml gives it; there is no editable install in Blender's Python."""
    link = folder / "headstudio"
    if not link.is_symlink() or link.resolve() != ROOT / "engine":
        link.unlink(missing_ok=True)
        link.symlink_to("../../engine")


if __name__ == "__main__":
    sys.exit(main())
