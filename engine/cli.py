"""``headstudio``: the command line. Each command is a file in ``commands/``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import __version__
from .commands import draw, evaluate, generate, info, pose, render, settings, worker

HELP = """Text to animatable Gaussian head avatars.

\b
  headstudio generate "an old man with a white beard and a red hat" --out old-man
  headstudio render old-man --sheet --turntable 4
  headstudio pose old-man --preset smile --out smile.ply

An avatar is a file NAME.avatar.npz; where one is expected, the folder that generate made will do, too.

Exit codes: 0 done, 2 something to put right (one line says what), 130 interrupted, 1 a fault of ours.
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"headstudio {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for _module in (generate, render, pose, evaluate, info, settings, worker, draw):
    app.command(_module.__name__.rpartition(".")[2])(_module.run)


def main() -> None:
    """Entry point of ``headstudio``."""
    app(prog_name="headstudio")


if __name__ == "__main__":
    main()
