"""``headstudio render``: pictures, sheets and videos of an avatar."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError
from .common import (
    JointOption,
    PresetOption,
    SetOption,
    command,
    find_avatar,
    find_name,
    output_folder,
    parse_numbers,
    parse_pose,
)

if TYPE_CHECKING:
    import numpy as np

_COLOURS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "grey": (0.5, 0.5, 0.5), "transparent": None}
_MAX_SECONDS = 3600.0


@command
def run(
    avatar: Annotated[Path, typer.Argument(metavar="AVATAR", help="An avatar file, or a job's folder.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the files. Default: render/ beside the avatar.")] = None,
    views: Annotated[
        str | None,
        typer.Option(help="Pictures: front, three-quarter, left, back, right, or azimuths in degrees; commas between."),
    ] = None,
    sheet: Annotated[bool, typer.Option("--sheet", help="One picture with every preset expression.")] = False,
    turntable: Annotated[float | None, typer.Option(metavar="SECONDS", help="A video of one turn around.")] = None,
    motion: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="A video of it talking, blinking and looking around.")
    ] = None,
    controls: SetOption = None,
    preset: PresetOption = None,
    joint: JointOption = None,
    size: Annotated[str, typer.Option(help="Pixels: a square's side, or WIDTHxHEIGHT.")] = "512",
    background: Annotated[str, typer.Option(help="white, black, grey, transparent or #rrggbb.")] = "white",
    samples: Annotated[int, typer.Option(help="Samples along each side of a pixel; 2 is smoother.")] = 1,
    fps: Annotated[float, typer.Option(help="Frames per second of videos.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Another seed, another motion.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
) -> None:
    """Draw pictures and videos of an avatar.


    \b
    headstudio render old-man.avatar.npz
    headstudio render old-man.avatar.npz --views front,left,30 --preset smile --background transparent
    headstudio render old-man.avatar.npz --sheet --turntable 4 --motion 8 --size 512 --out pictures

    Views and the expression sheet become PNG, turntable and motion MP4; without any of these options it draws the five
    views. --set, --preset and --joint pose the views and the turntable. Prints the files that it wrote.
    """
    from ..avatar.file import load_avatar
    from ..device import choose_device
    from ..export.pictures import VIEWS, Stage, check_size, draw, write_png
    from ..export.video import write_video

    wanted = views or ("" if sheet or turntable is not None or motion is not None else ",".join(VIEWS))
    azimuths = _parse_views(wanted, VIEWS)
    pixels, colour = _parse_size(size), _parse_colour(background)
    check_size(*pixels, samples)
    moving = {"turntable": turntable, "motion": motion}
    for name, seconds in moving.items():
        if seconds is None:
            continue
        if not 0 < seconds <= _MAX_SECONDS:
            raise UserError(f"--{name} {seconds:g}: give between 0 and {_MAX_SECONDS:g} seconds.")
        if colour is None:
            raise UserError("A video cannot be transparent. Choose another --background for it.")
    if not 1 <= fps <= 240:
        raise UserError(f"--fps {fps:g}: give between 1 and 240 frames per second.")
    if seed < 0:
        raise UserError(f"--seed {seed}: it must not be negative.")
    path = find_avatar(avatar)
    loaded = load_avatar(path)
    pose = parse_pose(loaded.head, controls, preset, joint)
    stage = Stage(loaded, choose_device(device))
    folder = output_folder(out or path.parent / "render")

    def picture(gaussians, azimuth: float, size: tuple[int, int] = pixels) -> np.ndarray:
        return draw(gaussians, stage.camera(azimuth, size), colour, samples)

    posed = stage.pose(*pose)
    for name, azimuth in azimuths.items():
        write_png(folder / f"{name}.png", picture(posed, azimuth))
        print(folder / f"{name}.png")
    if sheet:
        write_png(folder / "expressions.png", _expression_sheet(stage, picture, pixels))
        print(folder / "expressions.png")
    if turntable is not None:
        count = max(1, round(turntable * fps))
        frames = (picture(posed, 360 * index / count) for index in range(count))
        write_video(folder / "turntable.mp4", _bar("turntable", frames, count), fps)
        print(folder / "turntable.mp4")
    if motion is not None:
        frames, count = _motion_frames(stage, picture, motion, fps, seed)
        write_video(folder / "motion.mp4", _bar("motion", frames, count), fps)
        print(folder / "motion.mp4")


def _expression_sheet(stage, picture: Callable, pixels: tuple[int, int]) -> np.ndarray:
    """Every preset, each at half the size."""
    from ..export.sheets import contact_sheet
    from ..heads.expressions import PRESETS

    half = (max(1, pixels[0] // 2), max(1, pixels[1] // 2))
    pictures = {"neutral": picture(stage.pose(), 0.0, half)}
    for name, sliders in PRESETS.items():
        pictures[name] = picture(stage.pose(*stage.arrays.drive(sliders)), 0.0, half)
    return contact_sheet(pictures)


def _motion_frames(stage, picture: Callable, seconds: float, fps: float, seed: int) -> tuple[Iterator[np.ndarray], int]:
    import numpy as np

    from ..motion.generators import MotionSampler

    played = MotionSampler(stage.arrays).sequence(seconds, fps, np.random.default_rng(seed))
    frames = (picture(stage.pose(*pose), 0.0) for pose in zip(played.expression, played.joints, strict=True))
    return frames, len(played)


def _bar(name: str, frames: Iterator[np.ndarray], count: int) -> Iterator[np.ndarray]:
    from tqdm import tqdm

    return tqdm(frames, desc=name, total=count, unit="frame", disable=not sys.stderr.isatty())


def _parse_views(text: str, known: dict[str, float]) -> dict[str, float]:
    """File name to azimuth in degrees."""
    azimuths = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        if re.fullmatch(r"[-+]?\d+(\.\d+)?", part):
            azimuths[f"azimuth{float(part):g}"] = parse_numbers("--views", part)[0]
        else:
            name = find_name("view", part, known)
            azimuths[name] = known[name]
    if text and not azimuths:
        raise UserError(f"--views {text!r} names no view.")
    return azimuths


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(-?\d{1,6})(?:x(-?\d{1,6}))?", text)
    if not match:
        raise UserError(f"--size {text!r}: expected a side such as 512, or a width and height such as 640x480.")
    return int(match[1]), int(match[2] or match[1])


def _parse_colour(text: str) -> tuple[float, float, float] | None:
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return tuple(int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return _COLOURS[find_name("background", text, _COLOURS)]
