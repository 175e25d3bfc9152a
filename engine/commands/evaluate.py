"""``headstudio evaluate``: figures measured on finished avatars."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .common import check_parent, command, find_avatar


@command
def run(
    avatars: Annotated[list[Path], typer.Argument(metavar="AVATAR...", help="Avatar files, or jobs' folders.")],
    out: Annotated[Path | None, typer.Option(help="JSON file to write. Default: standard output.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
) -> None:
    """Measure avatars: JSON of what they are worth.

    \b
    headstudio evaluate old-man.avatar.npz elf.avatar.npz --out figures.json

    Do lids and lips close, is the head opaque from all around, do the colours agree with the prompt, how many splats
    are there and how many have left the head? A JSON list with one object per avatar; engine/evaluate/evaluate.py
    explains every figure.
    """
    from ..avatar.atomic import atomic_write
    from ..avatar.file import load_avatar
    from ..device import choose_device
    from ..evaluate.evaluate import evaluate, training_seconds

    if out:
        check_parent(out)
    where = choose_device(device)
    loaded = {path: load_avatar(path) for path in map(find_avatar, avatars)}  # all of them before the first is measured
    figures = [
        {"avatar": str(path), **evaluate(avatar, where), "seconds": training_seconds(path.parent)}
        for path, avatar in loaded.items()
    ]
    text = json.dumps(figures, indent=1) + "\n"
    if out:
        with atomic_write(out) as file:
            file.write(text.encode())
        print(out)
    else:
        sys.stdout.write(text)
