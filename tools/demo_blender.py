"""The demo's last stage, in Blender: import the avatar, key expressions and head turns, render, save, export.

Runs in a Python that has ``bpy``: ``python tools/demo_blender.py AVATAR FOLDER [--size PIXELS]``. It uses the
extension as an artist would, from the built zip, and prints the seconds of each stage as one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 72  # three seconds
# Frame to (preset, head turn in degrees about the vertical); what a director would ask for first
SEQUENCE = {
    1: ("neutral", 0),
    10: ("smile", 0),
    18: ("smile", 20),
    22: ("blink", 20),
    26: ("neutral", 10),
    36: ("open mouth", -10),
    46: ("surprise", -25),
    54: ("kiss", 0),
    62: ("wink", 10),
    72: ("neutral", 0),
}


def main(avatar: Path, folder: Path, size: int) -> None:
    seconds: dict[str, float] = {}
    began = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal began
        now = time.perf_counter()
        seconds[stage] = round(now - began, 2)
        began = now

    with tempfile.TemporaryDirectory() as user:
        os.environ["BLENDER_USER_RESOURCES"] = user  # before bpy is imported: the user's own Blender is left alone
        command = [sys.executable, str(ROOT / "build_addon.py"), "--output-folder", user]
        subprocess.run(command, check=True, capture_output=True)
        import bpy

        bpy.ops.wm.read_factory_settings(use_empty=True)
        (archive,) = Path(user).glob("*.zip")
        bpy.ops.extensions.package_install_files(repo="user_default", filepath=str(archive), enable_on_install=True)
        lap("install the extension")
        bpy.ops.import_scene.headstudio_avatar(filepath=str(avatar))
        lap("import the avatar")
        scene = bpy.context.scene
        rig = next(item for item in scene.objects if item.type == "ARMATURE")
        bpy.context.view_layer.objects.active = rig
        _key(bpy, scene, rig)
        lap("key the sequence")
        _camera(bpy, scene, rig)
        folder.mkdir(parents=True, exist_ok=True)
        _render(bpy, scene, folder / "animation.mp4", size)
        lap("render the animation")
        scene.frame_step = 12
        bpy.ops.export_scene.headstudio_ply(filepath=str(folder / "splats.ply"), sequence=True)
        scene.frame_step = 1
        lap("export the PLY sequence")
        bpy.ops.wm.save_as_mainfile(filepath=str(folder / "demo.blend"), compress=True)
        lap("save demo.blend")
        print(json.dumps({"blender": bpy.app.version_string, "frames": FRAMES, "seconds": seconds}), flush=True)
        # Without Blender's own clean-up, which now and then hangs in software GPU drivers
        os._exit(0)


def _key(bpy, scene, rig) -> None:
    neck = rig.pose.bones["neck"]
    neck.rotation_mode = "YXZ"  # the bone points up: its y axis is the vertical
    for frame, (preset, turn) in SEQUENCE.items():
        scene.frame_set(frame)
        bpy.ops.headstudio.apply_preset(preset=preset)
        neck.rotation_euler = (0, math.radians(turn), 0)
        bpy.ops.headstudio.key_expression()
    scene.frame_start, scene.frame_end, scene.render.fps = 1, FRAMES, 24
    scene.frame_set(1)


def _camera(bpy, scene, rig) -> None:
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    mesh = next(item for item in rig.children if item.type == "MESH")
    height = mesh.dimensions.z
    middle = mesh.matrix_world @ (sum((type(mesh.location)(c) for c in mesh.bound_box), type(mesh.location)()) / 8)
    camera.data.lens, camera.data.clip_start = 50, 0.01
    camera.location = middle + type(middle)((0, -1.75 * height, 0.1 * height))
    camera.rotation_euler = (math.radians(90) - math.atan2(0.1, 1.75), 0, 0)


def _render(bpy, scene, path: Path, size: int) -> None:
    render, image = scene.render, scene.render.image_settings
    render.engine = "HEADSTUDIO"
    render.resolution_x = render.resolution_y = size
    scene.view_settings.view_transform = "Standard"
    if hasattr(image, "media_type"):  # Blender 5
        image.media_type = "VIDEO"
    image.file_format = "FFMPEG"
    render.ffmpeg.format, render.ffmpeg.codec = "MPEG4", "H264"
    render.ffmpeg.constant_rate_factor = "HIGH"
    render.filepath = str(path)
    bpy.ops.render.render(animation=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("avatar", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=384, help="side of the animation's pictures in pixels")
    arguments = parser.parse_args()
    main(arguments.avatar.resolve(), arguments.folder.resolve(), arguments.size)
