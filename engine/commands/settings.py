"""``headstudio settings``: what ``generate --setting`` takes."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from .common import command


@command
def run(
    preset: Annotated[str, typer.Option(help="Whose values to show: draft, standard or paper.")] = "draft",
) -> None:
    """List the training settings of a preset.

    \b
    headstudio generate "an old man" --setting views=2 --setting timesteps=20,600
    """
    from ..train.settings import PRESETS, get_preset, settings_help

    values = get_preset(preset).to_json()
    print(f"{preset}: {PRESETS[preset][0]}. Others: {', '.join(name for name in PRESETS if name != preset)}.\n")
    for name, sentence in settings_help().items():
        value = values[name]
        if isinstance(value, dict):  # the cameras' ranges, which no option changes
            value = "; ".join(f"{key} {_plain(part)}" for key, part in value.items())
        print(textwrap.fill(f"{name}={_plain(value)}", 100, subsequent_indent="  "))
        print(textwrap.indent(textwrap.fill(sentence, 96), "    "))


def _plain(value: object) -> str:
    """As ``--setting`` takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
