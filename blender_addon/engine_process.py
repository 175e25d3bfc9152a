"""Finds the engine and starts its worker, a process that outlives Blender and speaks through a job's folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..engine.errors import UserError
from ..engine.job import Job

NOT_FOUND = (
    "The HeadStudio engine was not found. Install it (run `make demo` in its folder) and choose its command "
    "in Edit > Preferences > Add-ons > HeadStudio."
)


def find_engine(chosen: str = "") -> Path:
    """The ``headstudio`` command: the chosen one, HEADSTUDIO_ENGINE, this checkout's .venv, or the one on the PATH.

    Raises ``UserError`` if there is none; a chosen one that is not there is never passed over in silence.
    """
    for source in (chosen, os.environ.get("HEADSTUDIO_ENGINE", "")):
        if source:
            path = Path(source).expanduser()
            if path.is_file() and os.access(path, os.X_OK):
                return path
            raise UserError(f"{path} is not the HeadStudio engine: no such program. {NOT_FOUND}")
    command = "headstudio.exe" if os.name == "nt" else "headstudio"
    folder = "Scripts" if os.name == "nt" else "bin"
    # Where the extension is a link to a checkout, its own environment is the right one
    beside = Path(__file__).resolve().parents[1] / ".venv" / folder / command
    if beside.is_file():
        return beside
    found = shutil.which("headstudio")
    if found:
        return Path(found)
    raise UserError(NOT_FOUND)


def start_worker(engine: Path, job: Job) -> subprocess.Popen:
    """Start ``headstudio worker JOB``, detached: closing or crashing Blender leaves it at work."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    detached = (
        {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore
        if sys.platform == "win32"
        else {"start_new_session": True}
    )
    try:
        with open(job.log_path, "ab") as log:
            return subprocess.Popen(
                [str(engine), "worker", str(job.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=job.folder,
                **detached,
            )
    except OSError as error:
        raise UserError(f"The engine at {engine} cannot be started: {error.strerror or error}.") from error


def last_lines(path: Path, count: int = 12) -> list[str]:
    """The end of a log file; nothing if it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []
