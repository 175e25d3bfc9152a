"""Build the Blender extension: ``python build_addon.py`` writes ``dist/headstudio-VERSION.zip`` and validates it.

The zip is this tree without tests, benchmarks and tools, so relative imports between the halves are the same in a
checkout and in Blender. Blender's own extension tool builds and checks it; it is found in the ``bpy`` module of the
running Python, or through a Blender executable named by ``--blender`` or the environment variable BLENDER.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent
# Pure-Python libraries that Blender lacks; one file serves every Python version. The manifest names them.
WHEELS = ("plyfile==1.1.3",)
FILES = ("__init__.py", "blender_manifest.toml", "LICENSE", "README.md")
FOLDERS = ("blender_addon", "engine")


def extension_tool(blender: str | None) -> list[str]:
    """The command line of Blender's extension tool."""
    if blender:
        return [blender, "--command", "extension"]
    found = importlib.util.find_spec("bpy")
    folders = [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    tool = "scripts/addons_core/bl_pkg/cli/blender_ext.py"
    scripts = [script for folder in folders for script in folder.glob(f"*/{tool}")]
    if not scripts:
        sys.exit("Blender's extension tool was not found: pip install bpy, or set BLENDER=/path/to/blender.")
    return [sys.executable, str(scripts[0])]


def build(output_folder: Path, blender: str | None = None) -> Path:
    """Build and validate; returns the zip. A failing step ends the program with the tool's own message."""
    version = tomllib.loads((ROOT / "blender_manifest.toml").read_text())["version"]
    output = output_folder / f"headstudio-{version}.zip"
    output_folder.mkdir(parents=True, exist_ok=True)
    tool = extension_tool(blender)
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder) / "headstudio"
        stage.mkdir()
        for name in FILES:
            shutil.copy2(ROOT / name, stage / name)
        for name in FOLDERS:
            shutil.copytree(ROOT / name, stage / name, ignore=shutil.ignore_patterns("__pycache__", "*.py[cod]"))
        download = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        _run([sys.executable, *download, "--dest", str(stage / "wheels"), *WHEELS])
        for step in (
            ["build", "--source-dir", str(stage), "--output-filepath", str(output)],
            ["validate", str(output)],
        ):
            _run([*tool, *step])
    return output


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-folder", type=Path, default=ROOT / "dist")
    parser.add_argument("--blender", default=os.environ.get("BLENDER"), help="Blender executable (default: bpy)")
    arguments = parser.parse_args()
    print(build(arguments.output_folder, arguments.blender))


if __name__ == "__main__":
    main()
