"""What a frame of the viewport costs in Python and numpy, part by part, and drawing it, on this machine.

    python -m benchmarks.viewport [--splats 100000] [--frames 60]

Runs the built extension in the bpy module. One avatar on the default head is posed anew for every frame; Blender's own
evaluation of the rig is measured beside, not as a part. Drawing needs no screen; without a GPU it is Mesa's software
rasteriser, which finishes a picture before the call returns.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import machine, noise_avatar, write_results
from build_addon import build

SIZE = 512  # pixels, width and height of what is drawn
WARM_UP = 3


class Clock:
    """Milliseconds of named parts, by the wall and of this thread's processor time, which other load does not touch."""

    def __init__(self):
        self.times: dict[str, list[tuple[float, float]]] = defaultdict(list)

    @contextmanager
    def part(self, name: str):
        wall, processor = time.perf_counter(), time.thread_time()
        yield
        self.times[name].append(((time.perf_counter() - wall) * 1e3, (time.thread_time() - processor) * 1e3))

    def results(self) -> dict[str, dict[str, float]]:
        results = {}
        for name, times in self.times.items():
            wall, processor = zip(*times[WARM_UP:], strict=True)
            figures = {"median_ms": median(wall), "min_ms": min(wall), "median_processor_ms": median(processor)}
            results[name] = {key: round(value, 3) for key, value in figures.items()}
        return results


def install(folder: Path):
    """The bpy module with the extension, built from this tree, enabled; and the extension's Blender half."""
    os.environ["BLENDER_USER_RESOURCES"] = str(folder)
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.extensions.package_install_files(repo="user_default", filepath=str(build(folder)), enable_on_install=True)
    return bpy, importlib.import_module("bl_ext.user_default.headstudio.blender_addon")


def turned_view(angle: float) -> np.ndarray:
    """World to view [4, 4] from 0.7 m before the face, turned by ``angle`` about it."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s, 0, 0], [0, 0, 1, 0], [s, -c, 0, -0.7], [0, 0, 0, 1]], np.float64)


def measure_numpy(bpy, addon, rig, frames: int) -> dict:
    """Parts of a frame whose mesh has moved and whose view has turned, and frames in which less has changed."""
    clock = Clock()
    avatars = addon.scene_avatars.SceneAvatars()
    keys = list(rig.mesh.data.shape_keys.key_blocks)[1:9]
    neck = rig.armature.pose.bones["neck"]
    neck.rotation_mode = "XYZ"
    rng = np.random.default_rng(0)
    for frame in range(WARM_UP + frames):
        for key, value in zip(keys, rng.random(len(keys)), strict=True):
            key.value = value
        neck.rotation_euler.x = 0.2 * np.sin(frame)
        with clock.part("blender evaluates the rig (no part of ours)"):
            bpy.context.view_layer.update()
        depsgraph = bpy.context.evaluated_depsgraph_get()
        direction = -turned_view(0.05 * frame)[2, :3]
        with clock.part("mesh moved, view turned"):
            with clock.part("  read the mesh, frames of its triangles"):
                avatars.update(depsgraph)
            with clock.part("  frames gathered for upload"):
                assert avatars.group.update_frames()
            with clock.part("  depth order"):
                avatars.group.back_to_front(direction)
        with clock.part("view turned"):
            avatars.update(depsgraph)
            assert not avatars.group.update_frames()
            avatars.group.back_to_front(direction)
        with clock.part("nothing changed"):
            avatars.update(depsgraph)
            assert not avatars.group.update_frames()
    return clock.results()


def measure_gpu(bpy, addon, rig, frames: int) -> dict:
    """Uploads, a draw whose mesh has moved and whose view has turned, and the same splats drawn again unchanged."""
    import gpu

    clock, failures = Clock(), []
    projection = np.array([[2.5, 0, 0, 0], [0, 2.5, 0, 0], [0, 0, -1.0002, -0.02], [0, 0, -1, 0]])
    key = rig.mesh.data.shape_keys.key_blocks["jawOpen"]

    def draw(avatars, offscreen, angle: float) -> None:
        with offscreen.bind():
            framebuffer = gpu.state.active_framebuffer_get()
            framebuffer.clear(color=(0, 0, 0, 0))
            avatars.group.draw(turned_view(angle), projection, SIZE, SIZE)
            framebuffer.read_color(0, 0, 1, 1, 4, 0, "FLOAT")  # until it is finished

    def run() -> None:
        avatars = addon.scene_avatars.SceneAvatars()
        offscreen = gpu.types.GPUOffScreen(SIZE, SIZE, format="RGBA16F")
        for frame in range(WARM_UP + frames):
            key.value = (frame % 10) / 10
            bpy.context.view_layer.update()
            depsgraph = bpy.context.evaluated_depsgraph_get()
            with clock.part("mesh moved, view turned: all, and drawn"):
                avatars.update(depsgraph)
                draw(avatars, offscreen, 0.05 * frame)
            with clock.part("drawn again as it is"):
                draw(avatars, offscreen, 0.05 * frame)
            group = avatars.group
            with clock.part("upload of the frames"):
                addon.splat_draw._texture(group._frame_rows)
            with clock.part("upload of the order"):
                addon.splat_draw._texture(group._sequence_rows)
        offscreen.free()

    class Host(bpy.types.RenderEngine):
        """Without a window a GPU context exists inside a render engine alone."""

        bl_idname = "HEADSTUDIO_BENCHMARK"
        bl_label = "Benchmark"
        bl_use_gpu_context = True

        def render(self, _depsgraph):
            try:
                run()
            except Exception as error:
                failures.append(error)

    bpy.utils.register_class(Host)
    scene = bpy.context.scene
    scene.camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(scene.camera)
    scene.render.engine = Host.bl_idname
    bpy.ops.render.render()
    if failures:
        raise failures[0]
    return clock.results()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splats", type=int, default=100_000)
    parser.add_argument("--frames", type=int, default=60)
    arguments = parser.parse_args()
    description = machine()
    with tempfile.TemporaryDirectory() as folder:
        bpy, addon = install(Path(folder))
        avatar = noise_avatar(arguments.splats)
        rig = addon.import_avatar.import_avatar(avatar, "Noise", bpy.context.scene.collection)
        result = {
            "blender": bpy.app.version_string,
            "splats": len(avatar.splats),
            "triangles": len(avatar.head.triangles),
            "python_and_numpy": measure_numpy(bpy, addon, rig, arguments.frames),
            f"gpu_{SIZE}_px": measure_gpu(bpy, addon, rig, max(3, arguments.frames // 6)),
        }
        print(json.dumps(result, indent=2))
        print(write_results("viewport", result, description))
        sys.stdout.flush()
    os._exit(0)  # bpy hangs at exit while a render engine is registered


if __name__ == "__main__":
    main()
