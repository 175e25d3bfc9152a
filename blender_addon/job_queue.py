"""The jobs of one folder as a queue (no bpy). The folders are the truth, so that every Blender sees the same queue.

JOBS/
  NAME-1/, NAME-2/ ...   a job each (``engine/job.py``); in one of them may lie
    place                its place in the queue, a number: the lowest is served first
    hidden               it is no longer to be listed
  paused                 present while no job is to be started
  owner                  locked by the Blender that works through the queue
"""

from __future__ import annotations

import json
import math
import os
import secrets
from pathlib import Path
from typing import BinaryIO

from ..engine.avatar.atomic import atomic_write
from ..engine.errors import UserError
from ..engine.job import RUNNING, Job, JobRequest, folder_errors, take_lock

_PLACE, _HIDDEN, _PAUSED, _OWNER = "place", "hidden", "paused", "owner"
REMOVED = ".removed-"  # begins the name of a job's folder that is to be deleted


class JobQueue:
    """The jobs in ``folder``. Keeps nothing of them: every question is answered from the disk.

    What writes raises ``UserError`` on a disk that is full or read-only, and for a folder that has been deleted.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def folders(self) -> list[Path]:
        """The folders of all listed jobs, in no order."""
        try:
            found = [item for item in self.folder.iterdir() if not item.name.startswith(".")]
        except OSError:
            return []
        return [item for item in found if (item / "job.json").exists() and not (item / _HIDDEN).exists()]

    def waiting(self) -> list[Path]:
        """The folders of the jobs that wait, in the order in which they will be served."""
        places = {folder: place(folder) for folder in self.folders()}
        return sorted((f for f, at in places.items() if at is not None), key=lambda f: (places[f], f.name))

    @property
    def paused(self) -> bool:
        return (self.folder / _PAUSED).exists()

    def add(self, request: JobRequest) -> Job:
        """A new job, last in the queue."""
        number = 1
        while (self.folder / f"{request.name}-{number}").exists():
            number += 1
        job = Job.create(self.folder / f"{request.name}-{number}", request)
        self.put_last(job.folder)
        return job

    def put_last(self, folder: Path) -> None:
        """Let a job wait, behind all others; a wish to cancel it is forgotten."""
        _job(folder).withdraw_cancel()
        last = [place(other) for other in self.waiting() if other != folder][-1:]
        _write_place(folder, math.floor(last[0]) + 1 if last and math.isfinite(last[0]) else len(last))

    def take_out(self, folder: Path) -> None:
        """The job no longer waits."""
        with folder_errors(folder):
            (folder / _PLACE).unlink(missing_ok=True)

    def move(self, folder: Path, by: int) -> None:
        """Move a waiting job by so many places, -1 for one earlier; at either end it stays where it is."""
        order = self.waiting()
        if folder not in order:
            raise UserError(f"The job {folder.name} does not wait any more.")
        at = order.index(folder)
        order.insert(min(max(at + by, 0), len(order) - 1), order.pop(at))
        for number, other in enumerate(order):
            if place(other) != number:
                _write_place(other, number)

    def pause(self, at_work: Path | None) -> None:
        """Start no job any more; the one at work keeps a checkpoint, stops, and goes on first after :meth:`go_on`."""
        with folder_errors(self.folder):
            (self.folder / _PAUSED).touch()
        if at_work is not None:
            first = [place(folder) for folder in self.waiting()][:1]
            _write_place(at_work, first[0] - 1 if first and math.isfinite(first[0]) else 0)
            _job(at_work).request_cancel()

    def go_on(self) -> None:
        """Take back a pause."""
        with folder_errors(self.folder):
            (self.folder / _PAUSED).unlink(missing_ok=True)

    def remove(self, folder: Path, files: bool) -> None:
        """Take a job off the list, with all its files or without. Raises ``UserError`` while it is served.

        The files are moved out of sight here and deleted by :func:`delete_removed`.
        """
        if folder.parent != self.folder:
            raise UserError(f"{folder} is no job of {self.folder}.")
        job = _job(folder)
        if job.exists() and job.state() == RUNNING:
            raise UserError(f"The job {folder.name} is being worked on. Cancel it first.")
        with folder_errors(folder):
            if files and folder.exists():
                folder.rename(self.folder / f"{REMOVED}{folder.name}-{secrets.token_hex(4)}")
            elif folder.exists():
                (folder / _HIDDEN).touch()
                (folder / _PLACE).unlink(missing_ok=True)


class Ownership:
    """The right to start a folder's jobs: a lock of the operating system, which ends with the process that holds it."""

    def __init__(self, folder: Path):
        self.path = folder / _OWNER
        self._file: BinaryIO | None = None

    def take(self) -> bool:
        """Whether this process holds it now. Raises ``UserError`` where nothing can be written."""
        if self._file is not None:
            return True
        with folder_errors(self.path.parent):
            file = open(self.path, "a+b")  # noqa: SIM115 (stays open: closing it ends the lock)
        if not take_lock(file, exclusive=True):
            file.close()
            return False
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid()}).encode())
        file.flush()
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def holder(self) -> int | None:
        """The process that holds it, as far as the file tells."""
        try:
            return json.loads(self.path.read_bytes()).get("pid")
        except (OSError, ValueError, AttributeError):
            return None


def place(folder: Path) -> float | None:
    """Where a job stands in the queue; None if it does not wait. A damaged number stands last."""
    try:
        number = float((folder / _PLACE).read_text())
    except OSError:
        return None
    except ValueError:
        return math.inf
    return math.inf if math.isnan(number) else number


def _job(folder: Path) -> Job:
    """A job whose request is not asked for, and may be damaged."""
    return Job(folder, None)


def _write_place(folder: Path, number: float) -> None:
    if not (folder / "job.json").exists():
        raise UserError(f"The job's folder {folder} has been deleted. Generate again.")
    with atomic_write(folder / _PLACE, durable=False) as file:  # a click waits for it
        file.write(repr(number).encode())
