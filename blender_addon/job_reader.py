"""What a job's folder tells, read bit by bit (no bpy): one :class:`Entry` per job for the panel to show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..engine.errors import UserError
from ..engine.job import CANCELLED, DONE, FAILED, INTERRUPTED, QUEUED, RUNNING, Event, Job
from .engine_process import last_lines
from .job_queue import place

# States beyond those of engine/job.py
STARTING, STOPPING, WAITING, BROKEN, DELETED = "starting", "stopping", "waiting", "broken", "deleted"
AT_WORK = (STARTING, RUNNING, STOPPING)
RESUMABLE = (QUEUED, INTERRUPTED, CANCELLED, FAILED)

_TAIL = 1 << 16  # bytes at the end of the events that are read when a job is first seen
_LOG_LINES = 4
_DATE = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ \w+ [\w.]+: ")  # and the level and place that worker.py logs


@dataclass(frozen=True)
class Entry:
    """A job as the panel shows it."""

    folder: Path
    state: str
    prompt: str = ""
    place: float | None = None  # in the queue
    step: int = 0
    total: int = 0  # steps; 0 as long as it is not known
    remaining: float = 0.0  # seconds
    message: str = ""
    failed: bool = False  # whether the message tells of a failure
    log: tuple[str, ...] = ()  # the last lines of the log, where something failed
    created: float = 0.0  # seconds since 1970
    snapshot: int = 0  # byte of the events at which the latest snapshot is told of; 0 before the first

    @property
    def text(self) -> str:
        """How far it is, for a progress bar."""
        if self.state in (STARTING, STOPPING):
            return self.state.capitalize()
        if not self.total:
            return "Loading"
        minutes, seconds = divmod(round(self.remaining), 60)
        hours, minutes = divmod(minutes, 60)
        left = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
        return f"Step {self.step} of {self.total}, {left} left"

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        return min(self.step / self.total, 1.0) if self.total else 0.0


class JobReader:
    """Follows one folder. Raises ``UserError`` from ``__init__`` if its ``job.json`` is missing or damaged."""

    def __init__(self, folder: Path):
        self.job = Job.open(folder)
        self.total = self.job.request.train_settings().steps
        self.step = self.snapshot = 0
        self.remaining = 0.0
        self.message, self.failed = "", False
        self.launched: int | None = None  # byte of the events after which those of the worker that we started stand
        self.created = _stat(folder / "job.json")[0]
        self.read_to = max(0, _stat(folder / "events.jsonl")[1] - _TAIL)

    def launch(self) -> None:
        """A worker has been started; until its first event the folder tells only of the one before."""
        self.read()
        self.launched = self.read_to
        self.message, self.failed = "", False

    def read(self, alive: bool = False) -> Entry:
        """What the folder tells now; ``alive`` says whether a process that we started for it still lives."""
        job, folder = self.job, self.job.folder
        if not job.exists():
            return self._entry(DELETED, f"The job's folder {folder} has been deleted. Generate again.", failed=True)
        state, at = job.state(), place(folder)
        events = job.events(self.read_to)
        for event in events:
            self._take_in(event)
        if self.launched is not None and self.read_to > self.launched:
            self.launched = None  # it has begun: from now on the folder knows
        if state == RUNNING:
            return self._entry(STOPPING if job.cancel_requested() else RUNNING)
        if self.launched is not None:
            if alive:
                return self._entry(STARTING)
            return self._entry(FAILED, "The engine ended before it could begin.", failed=True, log=self._log())
        if events:  # more may have come between the state and the events
            state = job.state()
        if at is not None and state != DONE:
            return self._entry(WAITING, at=at)
        if state == DONE and not job.avatar_path.exists():
            return self._entry(INTERRUPTED, f"{job.avatar_path.name} is gone. Resume makes it again.", failed=True)
        if state == INTERRUPTED:
            text = "The engine died: it was killed, ran out of memory, or the machine went down."
            return self._entry(state, text, failed=True, log=self._log())
        if state == CANCELLED:
            return self._entry(state, f"Stopped at step {self.step} of {self.total}.")
        if state == FAILED:
            return self._entry(state, self.message, failed=True, log=self._log())
        return self._entry(state, "" if state == DONE else self.message)

    def _log(self) -> list[str]:
        """The last lines of the log that say more than the message, without their dates."""
        lines = (_DATE.sub("", line) for line in last_lines(self.job.log_path, _LOG_LINES))
        return [line for line in lines if line and not (self.message and self.message in line)]

    def _take_in(self, event: Event) -> None:
        self.read_to = event.end
        if event.kind == "started":  # it speaks of step 0, also where the job goes on from a checkpoint
            self.message, self.failed = "", False
        else:
            self.step = event.step or self.step
        if event.kind == "progress":
            self.remaining = _number(event.data.get("remaining"))
        elif event.kind == "preview":
            self.snapshot = event.end
        elif event.kind in ("warning", "error"):
            self.message, self.failed = str(event.data.get("message", "")), event.kind == "error"

    def _entry(
        self,
        state: str,
        message: str | None = None,
        failed: bool | None = None,
        at: float | None = None,
        log: list[str] | tuple[str, ...] = (),
    ) -> Entry:
        return Entry(
            folder=self.job.folder,
            state=state,
            prompt=self.job.request.prompt,
            place=at,
            step=self.step,
            total=self.total,
            remaining=self.remaining,
            message=self.message if message is None else message,
            failed=self.failed if failed is None else failed,
            log=tuple(log),
            created=self.created,
            snapshot=self.snapshot,
        )


def broken(folder: Path, error: UserError) -> Entry:
    """The entry of a folder whose ``job.json`` cannot be used."""
    return Entry(folder, BROKEN, prompt=folder.name, message=str(error), failed=True)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e9 else 0.0


def _stat(path: Path) -> tuple[float, int]:
    """When a file was written, in seconds since 1970, and its bytes; zeros if there is none."""
    try:
        about = path.stat()
    except OSError:
        return 0.0, 0
    return about.st_mtime, about.st_size
