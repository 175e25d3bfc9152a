"""A job is a folder, and the folder is the truth (standard library only: Blender's half follows jobs with this file).

    JOB/
      job.json             the request, written once
      start.avatar.npz     the avatar that training starts from, where the request names one
      events.jsonl         what happened, one JSON object per line, only ever appended to
      checkpoint/          from which a stopped job goes on
      preview/             front.png, side.png and snapshot.avatar.npz of the latest snapshot
      NAME.avatar.npz      the result
      cancel               present while somebody asks the worker to stop
      lock                 held by the worker as long as it lives
      log.txt              for people: every event, and tracebacks

Every event has ``kind``, ``time`` (seconds since 1970) and ``step`` (finished steps so far). Kinds and what else they
hold:

- ``started``: ``pid``, ``resumed``
- ``progress``: ``total``, ``losses`` (by name), ``splats``, ``seconds`` (since the start), ``remaining`` (seconds)
- ``preview``: ``front``, ``side`` and ``avatar``, paths relative to the folder
- ``warning``: ``message``; the job goes on
- ``done``: ``avatar``, a path relative to the folder
- ``cancelled``: nothing; the job can be resumed
- ``error``: ``message``, a sentence for the artist; a traceback is in the log alone
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from .avatar.atomic import atomic_write
from .errors import UserError

if TYPE_CHECKING:
    from .train.settings import TrainSettings

FORMAT = "headstudio job"
VERSION = 1
START = "start.avatar.npz"
MAX_PROMPT = 1000  # characters; the text encoders read about 75 words
MAX_STEPS = 10_000_000
MAX_SEED = 2**63 - 1

QUEUED, RUNNING, INTERRUPTED = "queued", "running", "interrupted"
CANCELLED, FAILED, DONE = "cancelled", "failed", "done"
_FINAL = {"cancelled": CANCELLED, "error": FAILED, "done": DONE}  # event kind to the state that it leaves the job in

_NAME = re.compile(r"[^\W_][\w .-]{0,79}")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}  # on Windows
_OPTIONAL = ("negative", "controlnet", "start_from")  # texts of a request that may be none
_TAIL = 1 << 16  # bytes at the end of the events in which the last one is looked for


@dataclass(frozen=True)
class JobRequest:
    """What somebody asks for. Raises ``UserError``, which names the field, for a request that cannot be served.

    Whether the prior and the head exist is known when the worker opens them.
    """

    prompt: str
    name: str = ""  # of the avatar's file; default: the prompt's words
    negative: str | None = None  # negative prompt; none: the paper's
    seed: int = 0
    preset: str = "draft"
    steps: int | None = None  # none: the preset's
    prior: str = "starter"  # the built-in one, another known name, a folder, or a hub id
    controlnet: str | None = None  # folder or hub id, where the prior's folder has none
    download: bool = False  # whether missing weights may be fetched
    head: str = "default"  # the built-in one, or a FLAME file
    start_from: str | None = None  # an avatar file on that head; none: bare splats on the head's own shape
    device: str = "auto"  # "cpu", "cuda", "cuda:1"; auto: the GPU if there is one
    low_memory: bool = False  # one picture at a time through the prior, for 8-12 GB cards
    settings: dict[str, object] = field(default_factory=dict)  # fields of TrainSettings that differ from the preset's

    def __post_init__(self) -> None:
        for name in ("prompt", "name", "negative", "preset", "prior", "controlnet", "head", "device", "start_from"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name in _OPTIONAL and value is None):
                raise UserError(f"The request's {name} is {value!r}; it must be text.")
        for name in ("download", "low_memory"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"The request's {name} is {getattr(self, name)!r}; it must be true or false.")
        object.__setattr__(self, "prompt", _one_line("prompt", self.prompt))
        if not self.prompt:
            raise UserError("The prompt is empty. Describe the head, for example: a smiling old man with a red hat.")
        if self.negative is not None:
            object.__setattr__(self, "negative", _one_line("negative prompt", self.negative))
        object.__setattr__(self, "name", self.name or name_from(self.prompt))
        if (
            not _NAME.fullmatch(self.name)
            or self.name[-1] in " ."
            or self.name.split(".")[0].strip().lower() in _RESERVED
        ):
            raise UserError(
                f"The name {self.name[:100]!r} is no file name. Use up to 80 letters, digits, spaces, dots and dashes."
            )
        _whole_number("seed", self.seed, 0, MAX_SEED)
        if self.steps is not None:
            _whole_number("number of steps", self.steps, 1, MAX_STEPS)
        for name in ("prior", "head", "device"):
            if not getattr(self, name).strip():
                raise UserError(f"The {name} is empty.")
        self.train_settings()

    def train_settings(self) -> TrainSettings:
        """The preset's settings with what the request changes."""
        # Not before: it takes 10 ms, and Blender imports this module at every start
        from .train.settings import TrainSettings, get_preset

        preset = get_preset(self.preset).to_json()
        if not isinstance(self.settings, dict):
            raise UserError(f"The request's settings are {self.settings!r}; they must be names with values.")
        for name, value in self.settings.items():
            if name not in preset or name == "steps":
                raise UserError(f"There is no setting called {name!r}. See: headstudio settings")
            usual = preset[name]
            number = isinstance(usual, float) and isinstance(value, int) and not isinstance(value, bool)
            pair = isinstance(usual, tuple) and isinstance(value, list)
            if type(value) is not type(usual) and not number and not pair:
                raise UserError(f"The setting {name} is {value!r}; it must be like {usual!r}.")
        steps = {} if self.steps is None else {"steps": self.steps}
        try:
            return TrainSettings.from_json(preset | self.settings | steps)
        except ValueError as error:  # a pair of three numbers
            raise UserError(f"The request's settings {self.settings!r} cannot be used: {error}.") from error

    def to_json(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_json(data: object) -> JobRequest:
        """The inverse of :meth:`to_json`. Raises ``UserError`` for anything else."""
        known = {spec.name for spec in fields(JobRequest)}
        if not isinstance(data, dict) or "prompt" not in data or not set(data) <= known:
            raise UserError("The request of this job is not one that this version of HeadStudio understands.")
        return JobRequest(**data)


@dataclass(frozen=True)
class Event:
    """One line of ``events.jsonl``."""

    kind: str
    time: float  # seconds since 1970
    step: int
    data: dict  # what else this kind holds
    end: int  # byte after this line: hand it to ``Job.events`` to get what came later


class Job:
    """A job's folder. Cheap to make, keeps nothing open; :class:`Serving` is what a worker holds."""

    def __init__(self, folder: Path, request: JobRequest):
        self.folder = folder
        self.request = request

    @classmethod
    def create(cls, folder: str | os.PathLike[str], request: JobRequest) -> Job:
        """Makes the folder (which must be new or empty) and writes the request, and a copy of the avatar to start from.

        Raises ``UserError`` if something is there already, nothing can be written there, or that avatar is missing.
        """
        folder = Path(folder).absolute()
        start = request.start_from
        if start is not None and not (Path(start).is_file() and os.access(start, os.R_OK)):
            raise UserError(f"There is no avatar file at {start} to start from.")
        with folder_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / "job.json").exists():
                raise UserError(f"There is a job in {folder} already. Resume it, or choose another folder.")
            if any(folder.iterdir()):
                raise UserError(f"The folder {folder} is not empty. A job needs a folder of its own.")
            if start is not None:  # a copy: the file may change or vanish before the job is resumed
                shutil.copyfile(start, folder / START)
        about = {"format": FORMAT, "version": VERSION, "request": request.to_json()}
        with atomic_write(folder / "job.json", durable=False) as file:  # nothing is lost yet, and a click waits for it
            file.write(json.dumps(about, indent=1).encode())
        return cls(folder, request)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Job:
        """Reads the request. Raises ``UserError`` if the folder holds no job, or a damaged or newer one."""
        folder = Path(folder).absolute()
        path = folder / "job.json"
        try:
            about = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"There is no job in {folder}.") from error
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is damaged: {error}. Start a new job.") from error
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise UserError(f"{path} does not describe a job of HeadStudio.")
        if about.get("version") != VERSION:
            raise UserError(
                f"The job in {folder} was made by another version of HeadStudio (job version {about.get('version')!r}, "
                f"this one reads {VERSION}). Start a new job."
            )
        try:
            return cls(folder, JobRequest.from_json(about.get("request")))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    @property
    def avatar_path(self) -> Path:
        return self.folder / f"{self.request.name}.avatar.npz"

    @property
    def start_path(self) -> Path | None:
        """The copy of the avatar that training starts from."""
        return None if self.request.start_from is None else self.folder / START

    @property
    def checkpoint_folder(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def preview_folder(self) -> Path:
        return self.folder / "preview"

    @property
    def log_path(self) -> Path:
        return self.folder / "log.txt"

    @property
    def finished(self) -> bool:
        """Done, and the avatar is there: a worker has nothing left to do."""
        return self.last_state() == DONE and self.avatar_path.exists()

    def last_step(self) -> int:
        """The last step that an event speaks of; 0 before the first."""
        return max((event.step for event in self.events()), default=0)

    def exists(self) -> bool:
        """False once somebody has deleted the folder."""
        return (self.folder / "job.json").exists()

    def events(self, after: int = 0) -> list[Event]:
        """Events whose line begins at byte ``after`` or later, oldest first.

        A last line without its end is being written and belongs to the next call; a damaged line (what a crash left) is
        passed over. A folder without events gives none.
        """
        try:
            with open(self.folder / "events.jsonl", "rb") as file:
                file.seek(after)
                data = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"Cannot read the events of {self.folder}: {error.strerror or error}.") from error
        events, end = [], after
        for line in data.split(b"\n")[:-1]:
            end += len(line) + 1
            event = _parse(line, end)
            if event is not None:
                events.append(event)
        return events

    def follow(self, after: int = 0, poll: float = 0.25) -> Iterator[Event]:
        """Events as they come, until the job is done, cancelled, failed or interrupted, or its folder is gone.

        A queued job is waited for. Looks every ``poll`` seconds.
        """
        while True:
            # The state first: events that are written in between are then still read before the end
            over = not self.exists() or self.state() not in (QUEUED, RUNNING)
            for event in self.events(after):
                after = event.end
                yield event
            if over:
                return
            time.sleep(poll)

    def state(self) -> str:
        """``queued``, ``running``, ``interrupted`` (its worker died), ``cancelled``, ``failed`` or ``done``."""
        return RUNNING if self.worker() is not None else self.last_state()

    def last_state(self) -> str:
        """The state by the events alone: what it was before somebody took the lock, or after."""
        try:
            size = (self.folder / "events.jsonl").stat().st_size
        except OSError:
            return QUEUED
        last = self.events(max(0, size - _TAIL))
        if not last:
            return QUEUED
        return _FINAL.get(last[-1].kind, INTERRUPTED)

    def worker(self) -> dict | None:
        """``pid`` and ``started`` (seconds since 1970) of the process that serves this job now; None if none does."""
        path = self.folder / "lock"
        try:
            with open(path, "rb") as file:
                if take_lock(file, exclusive=False):
                    return None
                about = json.loads(file.read() or b"{}")
        except OSError:
            return None
        except ValueError:
            about = {}
        return {"pid": about.get("pid"), "started": about.get("started")}

    def request_cancel(self) -> None:
        """Asks the worker, present or next, to stop after its step; it can be resumed. Raises ``UserError``."""
        with folder_errors(self.folder):
            (self.folder / "cancel").touch()

    def cancel_requested(self) -> bool:
        return (self.folder / "cancel").exists()

    def withdraw_cancel(self) -> None:
        """Takes the wish back; whoever honours it does so too."""
        with folder_errors(self.folder):
            (self.folder / "cancel").unlink(missing_ok=True)


class Serving:
    """The right to serve a job, and to write its events: ``with Serving(job) as serving: serving.event("started")``.

    The lock is the operating system's, on the file ``lock``: it ends with the process, whatever ends that, so a crash
    or a power cut leaves nothing to clean up. The file says who holds it. Entering raises ``UserError`` if another
    process serves the job, or if nothing can be written in its folder.
    """

    def __init__(self, job: Job):
        self.job = job
        self._lock = None
        self._events: int | None = None
        self._torn = False  # whether the file ends within a line

    def __enter__(self) -> Serving:
        with folder_errors(self.job.folder):
            self._lock = open(self.job.folder / "lock", "a+b")
            # A reader who asks whether somebody works here holds the lock for a moment, too
            for attempt in range(20):
                if take_lock(self._lock, exclusive=True):
                    break
                if attempt == 19:
                    self._lock.close()
                    pid = (self.job.worker() or {}).get("pid")
                    raise UserError(
                        f"The job in {self.job.folder} is being worked on already (process {pid}). "
                        "Wait for it, or cancel it first."
                    )
                time.sleep(0.05)
            self._lock.truncate(0)
            self._lock.write(json.dumps({"pid": os.getpid(), "started": round(time.time(), 3)}).encode())
            self._lock.flush()
            path = self.job.folder / "events.jsonl"
            self._events = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            size = os.lseek(self._events, 0, os.SEEK_END)
            if size:
                os.lseek(self._events, size - 1, os.SEEK_SET)
                self._torn = os.read(self._events, 1) != b"\n"  # the worker before was killed in the middle of a line
        return self

    def __exit__(self, *_) -> None:
        if self._events is not None:
            os.close(self._events)
        self._lock.close()

    def event(self, kind: str, step: int = 0, **data) -> None:
        """Appends one event, whole. Raises ``UserError`` if the disk does not take it or the folder has gone."""
        line = json.dumps(
            {"kind": kind, "time": round(time.time(), 3), "step": step, **data}, default=_plain, allow_nan=False
        )
        with folder_errors(self.job.folder):
            if not self.job.exists():  # what is written to a deleted file goes nowhere
                raise FileNotFoundError(errno.ENOENT, "it has been deleted")
            data = b"\n" * self._torn + line.encode() + b"\n"
            # On a disk that is nearly full a part of the line may fit
            self._torn = os.write(self._events, data) < len(data)
            if self._torn:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def name_from(prompt: str) -> str:
    """A file name from the prompt's first words: ``a-smiling-old-man``."""
    words = re.findall(r"[^\W_]+", prompt.lower())
    name = ""
    for word in words:
        if name and len(name) + 1 + len(word) > 40:
            break
        name = f"{name}-{word[:40]}" if name else word[:40]
    if not name or name in _RESERVED:
        return "head"
    return name


def _one_line(what: str, text: str) -> str:
    """The text with single spaces. Raises ``UserError`` if it is too long or holds what nobody typed."""
    text = " ".join(text.split())
    if len(text) > MAX_PROMPT:
        raise UserError(f"The {what} has {len(text)} characters; at most {MAX_PROMPT} can be used. Shorten it.")
    if not text.isprintable():
        raise UserError(f"The {what} holds characters that cannot be printed. Type it anew.")
    return text


def _whole_number(what: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"The {what} is {value!r}; it must be a whole number from {low} to {high}.")


def _plain(value: object) -> object:
    """Numbers of numpy and torch, and paths, as JSON has them."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item()


def _parse(line: bytes, end: int) -> Event | None:
    try:
        data = json.loads(line)
        kind, moment, step = data.pop("kind"), data.pop("time"), data.pop("step")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    numbers = isinstance(moment, int | float) and math.isfinite(moment) and isinstance(step, int)
    return Event(kind, float(moment), step, data, end) if isinstance(kind, str) and numbers else None


@contextlib.contextmanager
def folder_errors(folder: Path) -> Iterator[None]:
    """What goes wrong in writing becomes a ``UserError`` that names the folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"Cannot write in the job's folder {folder}: {reason}. Choose another folder or free some space."
        ) from error


def take_lock(file, *, exclusive: bool) -> bool:
    """Takes the operating system's lock on an open file without waiting; it ends when the file is closed."""
    try:
        if os.name == "nt":
            import msvcrt

            # Windows locks bytes against reading, too: one far beyond the end leaves the text readable. It knows no
            # shared locks, so that two readers at the same moment may take each other for a worker.
            position = file.tell()
            file.seek(1 << 30)
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            finally:
                file.seek(position)
            return True
        import fcntl

        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        return True
    except (BlockingIOError, PermissionError):
        return False
