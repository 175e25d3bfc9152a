"""``headstudio worker``: serves a job folder that another program made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import command


@command
def run(job: Annotated[Path, typer.Argument(metavar="JOB", help="The job's folder.")]) -> None:
    """Serve a job folder (what Blender's add-on runs).

    Reads JOB/job.json and writes JOB/events.jsonl, JOB/preview/ and JOB/NAME.avatar.npz. A job that was stopped or
    whose worker died is resumed. It stops after the step, with code 130, when a file JOB/cancel appears or on SIGINT or
    SIGTERM. Prints nothing but the error that ends it.
    """
    from ..job import Job
    from ..worker import serve

    code = serve(Job.open(job))
    if code:
        raise typer.Exit(code)
