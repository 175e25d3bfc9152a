"""Frames a second of an avatar that is played: from expression values to a picture, no gradients.

    python -m benchmarks.playback [--splats 100000] [--size 1024] [--frames 200]
    python -m benchmarks.playback --toy

The motion is the training's own (speech, blinks, gaze, head turns) on the default head. "on device": the picture stays
where it was drawn, as for a viewport; "to host": it is copied out as bytes, as for a video. Parts are timed in a second
pass, in which the device is waited for after each.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from headstudio.avatar.binding import bind, triangle_frames
from headstudio.avatar.initialise import super_dense
from headstudio.camera import orbit
from headstudio.device import choose_device
from headstudio.heads.default_head import default_head
from headstudio.heads.head import Head
from headstudio.motion.generators import MotionSampler
from headstudio.rasterise import rasterise

from benchmarks.common import machine, write_results
from benchmarks.floors import synchronise

OPACITY = 0.6


class Player:
    """An avatar of ``splats`` grey splats spread over the default head, before one camera."""

    def __init__(self, splats: int, size: int, sh_degree: int, device: str):
        self.arrays = default_head()
        self.head = Head(self.arrays, device)
        self.gaussians = super_dense(
            self.head.template, self.head.triangles, opacity=OPACITY, sh_degree=sh_degree, count=splats
        )
        centre = torch.as_tensor(self.arrays.centre, dtype=torch.float32)
        self.camera = orbit(20.0, 5.0, 1.8 * self.arrays.unit, 50.0, size, centre).to(device)
        self.background = torch.zeros(3, device=device)
        self.parts = dict.fromkeys(("head", "frames and Eq. 5", "render"), 0.0)

    @torch.no_grad()
    def frame(self, expression: np.ndarray, joints: np.ndarray, wait: bool = False) -> torch.Tensor:  # [E], [J, 3]
        """A picture [S, S, 3]; with ``wait`` the time of each part is noted."""
        began = time.perf_counter()

        def part(name: str) -> None:
            nonlocal began
            if wait:
                synchronise()
                now = time.perf_counter()
                self.parts[name] += now - began
                began = now

        values = (torch.as_tensor(array).to(self.head.device, torch.float32) for array in (expression, joints))
        vertices = self.head(*(value[None] for value in values))[0]
        part("head")
        frames = triangle_frames(vertices, self.head.triangles)
        posed = bind(frames, self.gaussians.triangle, **self.gaussians.parameters())
        part("frames and Eq. 5")
        picture = rasterise(posed, self.camera, background=self.background).colour
        part("render")
        return picture


def measure(splats: int, size: int, sh_degree: int, frames: int, device: str) -> dict:
    """Frames a second over ``frames`` frames of a motion, after a tenth as many to warm up."""
    player = Player(splats, size, sh_degree, device)
    motion = MotionSampler(player.arrays).sequence(frames / 30, 30.0, np.random.default_rng(0))
    poses = list(zip(motion.expression, motion.joints, strict=True))
    for pose in poses[: max(1, len(poses) // 10)]:
        player.frame(*pose)

    def rate(deliver) -> float:
        synchronise()
        began = time.perf_counter()
        for pose in poses:
            deliver(player.frame(*pose))
        synchronise()
        return round(len(poses) / (time.perf_counter() - began), 1)

    on_device = rate(lambda picture: None)
    to_host = rate(lambda picture: (picture.clamp(0, 1) * 255).round().byte().cpu())
    for pose in poses:
        player.frame(*pose, wait=True)
    return {
        "splats": len(player.gaussians),
        "sh_degree": sh_degree,
        "size": size,
        "frames": len(poses),
        "frames_per_second": {"on device": on_device, "to host": to_host},
        "parts": {name: {"ms": round(1000 * seconds / len(poses), 3)} for name, seconds in player.parts.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splats", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=1024, help="pixels, both sides")
    parser.add_argument("--sh-degree", type=int, default=0, choices=range(4))
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--toy", action="store_true", help="a few small frames: does the script work?")
    parser.add_argument("--out", type=Path, help="the JSON file; default benchmarks/results/playback-MACHINE.json")
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.splats, arguments.size, arguments.frames = 2000, 64, 5
    description, device = machine(), choose_device(arguments.device)
    result = measure(arguments.splats, arguments.size, arguments.sh_degree, arguments.frames, device)
    result = {"device": device, **result}
    print(json.dumps(result, indent=2))
    print(write_results("playback", result, description, arguments.out))


if __name__ == "__main__":
    main()
