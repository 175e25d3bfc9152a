"""How long an avatar takes to arrive in Blender: reading the file, making the rig, storing the splats.

    python -m benchmarks.blender_import [--splats 100000]

Runs in the ``bpy`` module with the built extension installed, as the tests do. The avatar is noise on the default
head, with spherical harmonics of degree 0 and of degree 3. "processor" leaves out what other programs take.
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
COEFFICIENTS = (1, 16)  # spherical harmonics of degree 0 and 3


def import_in_blender(avatars: list[str], repetitions: int) -> None:
    """The part that runs in a process of its own: prints milliseconds by avatar as one JSON line."""
    import time

    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    (archive,) = Path(os.environ["BLENDER_USER_RESOURCES"]).glob("*.zip")
    bpy.ops.extensions.package_install_files(repo="user_default", filepath=str(archive), enable_on_install=True)
    times: dict[str, dict[str, list[float]]] = {path: {"clock": [], "processor": []} for path in avatars}
    for repetition in range(repetitions + 1):
        for path in avatars:
            bpy.ops.wm.read_homefile(use_empty=True)
            began = time.perf_counter(), time.process_time()
            bpy.ops.import_scene.headstudio_avatar(filepath=path)
            bpy.context.evaluated_depsgraph_get()
            ended = time.perf_counter(), time.process_time()
            if repetition:  # the first warms up
                for name, start, end in zip(("clock", "processor"), began, ended, strict=True):
                    times[path][name].append(1e3 * (end - start))
    print(json.dumps({"blender": bpy.app.version_string, "times": times}), flush=True)
    os._exit(0)  # without Blender's own clean-up, which now and then hangs in software GPU drivers


def run(count: int, repetitions: int) -> dict:
    from headstudio.avatar.file import save_avatar

    from benchmarks.common import noise_avatar

    with tempfile.TemporaryDirectory() as folder:
        paths = {c: Path(folder) / f"sh{c}.avatar.npz" for c in COEFFICIENTS}
        for coefficients, path in paths.items():
            save_avatar(path, noise_avatar(count, coefficients))
        subprocess.run([sys.executable, "build_addon.py", "--output-folder", folder], check=True, cwd=ROOT)
        command = [sys.executable, "-m", "benchmarks.blender_import", "--inside", *map(str, paths.values())]
        done = subprocess.run(
            [*command, "--repetitions", str(repetitions)],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "BLENDER_USER_RESOURCES": folder},
        )
        told = json.loads(done.stdout.splitlines()[-1])
        return {
            "blender": told["blender"],
            "splats": count,
            "imports": {
                f"{coefficients} SH coefficients": {
                    **{
                        name: {"median_ms": round(median(values), 1), "min_ms": round(min(values), 1)}
                        for name, values in told["times"][str(path)].items()
                    },
                    "megabytes": round(path.stat().st_size / 1e6, 1),
                }
                for coefficients, path in paths.items()
            },
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splats", type=int, default=100_000)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        import_in_blender(options.inside, options.repetitions)
    from benchmarks.common import machine, write_results

    about = machine()
    results = run(options.splats, options.repetitions)
    print(json.dumps(results, indent=1))
    print(write_results("blender_import", results, about))


if __name__ == "__main__":
    main()
