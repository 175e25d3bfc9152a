"""How long enabling the extension takes: what every start of Blender waits for.

    python -m benchmarks.blender_enable [--repetitions 7]

Each measurement is of a process of its own, whose modules nobody else has imported. The first enabling after an
installation, in which Python also compiles the files, stands apart. "processor" leaves out what other programs take.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
MODULE = "bl_ext.user_default.headstudio"


def enable_in_blender(archive: str) -> None:
    """The part that runs in a process of its own; installs ``archive`` first if it is given one."""
    import time

    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    if archive:
        bpy.ops.extensions.package_install_files(repo="user_default", filepath=archive, enable_on_install=False)
    before, began = set(sys.modules), (time.perf_counter(), time.process_time())
    bpy.ops.preferences.addon_enable(module=MODULE)
    ended = time.perf_counter(), time.process_time()
    assert MODULE in sys.modules
    clock, processor = (1e3 * (end - start) for start, end in zip(began, ended, strict=True))
    modules = len(set(sys.modules) - before)
    print(json.dumps({"clock": clock, "processor": processor, "modules": modules, "blender": bpy.app.version_string}))
    sys.stdout.flush()
    os._exit(0)  # without Blender's own clean-up, which now and then hangs in software GPU drivers


def run(repetitions: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "build_addon.py", "--output-folder", folder], check=True, cwd=ROOT)
        (archive,) = Path(folder).glob("*.zip")

        def measure(*options: str) -> dict:
            command = [sys.executable, "-m", "benchmarks.blender_enable", "--inside", *options]
            environment = {**os.environ, "BLENDER_USER_RESOURCES": folder}
            environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or Python would compile all files at every start
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
            return json.loads(done.stdout.splitlines()[-1])

        first = measure("--archive", str(archive))
        later = [measure() for _ in range(repetitions)]
    result = {
        "blender": first["blender"],
        "modules": later[0]["modules"],
        "after_installation_ms": round(first["clock"]),
    }
    for name in ("clock", "processor"):
        times = [each[name] for each in later]
        result[name] = {"median_ms": round(median(times), 1), "min_ms": round(min(times), 1)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--archive", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        enable_in_blender(options.archive)
    from benchmarks.common import machine, write_results

    about = machine()
    results = run(options.repetitions)
    print(json.dumps(results, indent=1))
    print(write_results("blender_enable", results, about))


if __name__ == "__main__":
    main()
