"""How long a job holds up Blender's main thread: every round of the add-on's timer while a real worker trains.

    python -m benchmarks.job_polling [--splats 100000] [--steps 60] [--others 50]

A round either looks at what the watching thread has published, or takes a snapshot in, or imports the finished avatar.
``wall`` is what the artist feels, waiting for Python's lock and for the processor included; ``cpu`` is what the main
thread itself does. The extension is built and installed into a fresh user folder; ``--others`` finished jobs lie in the
same folder. What viewports and panels draw afterwards is not in it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from headstudio.job import Job, JobRequest, Serving

from benchmarks.common import machine, write_results

MODULE = "bl_ext.user_default.headstudio"


class Stopwatch:
    """Wall and processor milliseconds of the calls of each kind."""

    def __init__(self) -> None:
        self.times: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def call(self, function: Callable[[], object], kind: Callable[[], str]) -> None:
        """Calls it and files its time under what ``kind`` says afterwards."""
        wall, cpu = time.perf_counter(), time.thread_time()
        function()
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        self.times[kind()].append((1e3 * wall, 1e3 * cpu))

    def summary(self) -> dict[str, dict]:
        return {kind: self._of(times) for kind, times in self.times.items()}

    def _of(self, times: list[tuple[float, float]]) -> dict:
        parts = {}
        for name, values in zip(("wall", "cpu"), zip(*times, strict=True), strict=True):
            parts[f"{name}_median_ms"] = round(statistics.median(values), 3)
            parts[f"{name}_max_ms"] = round(max(values), 3)
        return {"count": len(times), **parts}


def install(folder: Path):
    """Blender as a module with the extension enabled."""
    command = [sys.executable, "build_addon.py", "--output-folder", str(folder)]
    extension = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    os.environ["BLENDER_USER_RESOURCES"] = str(folder)
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.extensions.package_install_files(repo="user_default", filepath=extension, enable_on_install=True)
    return bpy


def finished_jobs(folder: Path, count: int) -> None:
    """Jobs of earlier days, each with a thousand events."""
    for number in range(count):
        job = Job.create(folder / f"earlier-{number}", JobRequest("an old man"))
        job.avatar_path.touch()
        with Serving(job) as serving:
            for step in range(1000):
                serving.event("progress", step, total=1000, losses={"distil": 1.0}, splats=1, remaining=1.0)
            serving.event("done", 1000, avatar=job.avatar_path.name)


def follow(bpy, jobs, steps: int, splats: int) -> dict:
    """One job from the press of the button to the rig."""
    watched, scene = Stopwatch(), bpy.context.scene
    request = {"steps": steps, "settings": {"splats": splats, "snapshot_every": max(steps // 10, 1), "views": 1}}

    def generate() -> None:
        jobs.generate(bpy.context, jobs.JobRequest("an orc", **request))

    def shown() -> tuple:
        previews = [item for item in scene.objects if "headstudio_job" in item]
        return "an-orc" in bpy.data.objects, previews[0].data.headstudio.splats.session_uid if previews else None

    jobs.step(bpy.context)
    watched.call(generate, lambda: "generate")
    before = shown()
    while not before[0]:
        entry = next((entry for entry in jobs.entries() if entry.prompt == "an orc"), None)
        if entry is not None and entry.failed:
            raise SystemExit(f"The job failed: {entry.message}")
        drawn = jobs._state.drawn

        def kind(before=before, drawn=drawn) -> str:
            now = shown()
            if now[0]:
                return "import"
            if now != before:
                return "snapshot"
            return "progress" if jobs._state.drawn != drawn else "nothing_new"

        watched.call(lambda: jobs.step(bpy.context), kind)
        before = shown()
        time.sleep(jobs.TICK)
    return watched.summary()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splats", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--others", type=int, default=50)
    parser.add_argument("--engine", type=Path, default=Path(sys.executable).with_name("headstudio"))
    arguments = parser.parse_args()
    description = machine()
    with tempfile.TemporaryDirectory() as folder:
        bpy = install(Path(folder))
        jobs = importlib.import_module(f"{MODULE}.blender_addon.jobs")
        preferences = bpy.context.preferences.addons[MODULE].preferences
        preferences.engine, preferences.jobs = str(arguments.engine.absolute()), str(Path(folder) / "jobs")
        finished_jobs(Path(folder) / "jobs", arguments.others)
        result = {
            "blender": bpy.app.version_string,
            "splats": arguments.splats,
            "other_jobs": arguments.others,
            "limits_ms": {"round": 16, "snapshot": 50},
            "rounds": follow(bpy, jobs, arguments.steps, arguments.splats),
        }
        print(json.dumps(result, indent=2))
        print(write_results("job_polling", result, description))
        sys.stdout.flush()
        bpy.ops.preferences.addon_disable(module=MODULE)  # bpy 4.5 hangs at exit while a render engine is registered
    os._exit(0)


if __name__ == "__main__":
    main()
