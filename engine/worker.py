"""The process that serves a job's folder: from the request to the avatar, with events, previews, cancel and resume.

It talks through the folder alone (see ``job.py``). A worker may be killed at any moment: the next one on the same
folder goes on from the last checkpoint, and ends with the avatar that an undisturbed run gives.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from .errors import UserError
from .job import Job, JobRequest, Serving

if TYPE_CHECKING:
    import torch

    from .avatar.file import Avatar
    from .guidance.prior import Prior
    from .heads.arrays import HeadArrays
    from .train.progress import Progress, Reporter

EXIT_DONE, EXIT_BUG, EXIT_USER_ERROR, EXIT_CANCELLED = 0, 1, 2, 130
PROGRESS_EVERY = 0.25  # seconds between two progress events
PREVIEW_SIZE = 256  # pixels

_log = logging.getLogger(__name__)


class StopSignals:
    """Ctrl-C and SIGTERM as a wish to stop (``with StopSignals() as stop``).

    While ``gentle``, the first signal sets ``requested``, so that the step is finished and a checkpoint written;
    otherwise, and from the second signal on, it raises ``KeyboardInterrupt``. Outside the main thread, where Python
    delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.gentle = False
        self.requested = False

    def __enter__(self) -> StopSignals:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # the last one is what Windows sends to a child
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not self.gentle:
            raise KeyboardInterrupt
        self.requested = True


def serve(job: Job, terminal: Reporter | None = None) -> int:
    """Serves the job until it ends, in this process, and returns an exit code: 0 done, 130 cancelled, 2 failed for a
    reason that the user can put right (one line on stderr), 1 for a fault of ours (its traceback is in the log).

    ``terminal`` gets the same reports as the folder. A wish to cancel that lies in the folder is honoured and removed,
    also one from before the start. A job that is done stays as it is. Raises ``UserError`` where not even an event can
    be written: another process serves the job, or its folder cannot be written to.
    """
    with Serving(job) as serving, StopSignals() as stop, _log_to(job.log_path):
        if job.finished:
            return EXIT_DONE
        _remove_leftovers(job)
        try:
            path = _run(job, serving, stop, terminal)
        except (_Cancelled, KeyboardInterrupt):
            with contextlib.suppress(UserError):  # the folder may be what is gone
                _tell(serving, "cancelled", job.last_step())
                job.withdraw_cancel()
            return EXIT_CANCELLED
        except UserError as error:
            _fail(serving, str(error))
            return EXIT_USER_ERROR
        except OSError as error:  # a full disk, or a file that is not to be read, anywhere on the machine
            _log.exception("The system refused")
            _fail(serving, f"The job cannot go on: {error}. Put that right and resume the job.")
            return EXIT_USER_ERROR
        except Exception as error:
            _log.exception("This is a fault in HeadStudio")
            _fail(
                serving,
                f"HeadStudio failed: {type(error).__name__}: {error}. This is a fault of ours; {job.log_path} holds "
                "what happened. What was trained so far is kept: resume the job to try again.",
            )
            return EXIT_BUG
        _tell(serving, "done", job.request.train_settings().steps, avatar=path.name)
        return EXIT_DONE


def load_inputs(request: JobRequest) -> tuple[HeadArrays, Prior]:
    """The head and the prior that the request names. Raises ``UserError`` if one cannot be had."""
    from .device import choose_device
    from .guidance.prior import Prior
    from .heads.select import load_head

    arrays = load_head(request.head)
    prior = Prior.load(
        request.prior,
        device=choose_device(request.device),
        controlnet=request.controlnet,
        download=request.download,
        attention_slicing=request.low_memory,
        views_at_once=1 if request.low_memory else None,
    )
    return arrays, prior


def prompt_warnings(prior: Prior, prompt: str) -> list[str]:
    """What the prior will not read of the prompt, as sentences for the artist."""
    warnings = []
    unknown = prior.unknown_words(prompt)
    if unknown:
        warnings.append(
            f"The prior {prior.name!r} does not know these words and will not follow them: {', '.join(unknown)}."
        )
    if prior.exceeds_token_limit(prompt):
        warnings.append(f"The prompt is longer than the prior {prior.name!r} reads; its end has no effect.")
    return warnings


class _Cancelled(Exception):  # noqa: N818
    pass


def _run(job: Job, serving: Serving, stop: StopSignals, terminal: Reporter | None) -> Path:
    _tell(serving, "started", pid=os.getpid(), resumed=job.last_step() > 0)
    if job.cancel_requested():
        raise _Cancelled
    from .avatar.file import load_avatar, save_avatar
    from .guidance.prompts import DEFAULT_NEGATIVE
    from .train.loop import TrainingStopped, train

    request = job.request
    arrays, prior = load_inputs(request)
    reporter = _JobReporter(serving, stop, terminal, prior.device)
    for message in prompt_warnings(prior, request.prompt):
        reporter.warning(message)
    stop.gentle = True
    try:
        avatar = train(
            settings=request.train_settings(),
            arrays=arrays,
            prior=prior,
            prompt=request.prompt,
            negative=DEFAULT_NEGATIVE if request.negative is None else request.negative,
            seed=request.seed,
            reporter=reporter,
            checkpoint_dir=job.checkpoint_folder,
            resume=True,
            device=prior.device,
            start=None if job.start_path is None else load_avatar(job.start_path),
        )
    except TrainingStopped as end:
        raise _Cancelled from end
    reporter.preview(avatar, request.train_settings().steps)
    save_avatar(job.avatar_path, avatar)
    return job.avatar_path


class _JobReporter:
    """Reports of the training loop as events and previews in the folder, and on the terminal if there is one."""

    def __init__(self, serving: Serving, stop: StopSignals, terminal: Reporter | None, device: torch.device):
        self._serving, self._stop, self._terminal, self._device = serving, stop, terminal, device
        self._job = serving.job
        self._last = -math.inf
        self._step = 0

    def progress(self, progress: Progress) -> None:
        self._step = progress.step
        if self._terminal is not None:
            self._terminal.progress(progress)
        now = time.monotonic()
        if now - self._last < PROGRESS_EVERY and progress.step < progress.total:
            return
        self._last = now
        self._serving.event(
            "progress",
            progress.step,
            total=progress.total,
            losses={name: value if math.isfinite(value) else None for name, value in progress.losses.items()},
            splats=progress.splats,
            seconds=round(progress.seconds, 3),
            remaining=round(progress.remaining, 3),
        )

    def snapshot(self, avatar: Avatar, step: int) -> None:
        self.preview(avatar, step)

    def preview(self, avatar: Avatar, step: int) -> None:
        """The avatar as it is, and two pictures of it; each file is replaced as a whole."""
        from .avatar.file import save_avatar
        from .export.pictures import VIEWS, Stage, draw, write_png

        folder = self._job.preview_folder
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot write the preview to {folder}: {error.strerror or error}.") from error
        stage = Stage(avatar, self._device)
        gaussians = stage.pose()
        files = {}
        for name, azimuth in (("front", VIEWS["front"]), ("side", VIEWS["left"])):
            write_png(folder / f"{name}.png", draw(gaussians, stage.camera(azimuth, PREVIEW_SIZE)))
            files[name] = f"{folder.name}/{name}.png"
        save_avatar(folder / "snapshot.avatar.npz", avatar)
        _tell(self._serving, "preview", step, **files, avatar=f"{folder.name}/snapshot.avatar.npz")

    def warning(self, message: str) -> None:
        _tell(self._serving, "warning", self._step, message=message)
        if self._terminal is not None:
            self._terminal.warning(message)

    def should_stop(self) -> bool:
        if not self._job.exists():
            raise UserError(f"The job's folder {self._job.folder} has been deleted: nothing is left to do.")
        return self._stop.requested or self._job.cancel_requested()


def _tell(serving: Serving, kind: str, step: int = 0, **data) -> None:
    """An event that people read, too."""
    serving.event(kind, step, **data)
    _log.info("%s at step %d %s", kind, step, data or "")


def _fail(serving: Serving, message: str) -> None:
    """The error as an event where that is still possible, and on stderr."""
    with contextlib.suppress(UserError):
        _tell(serving, "error", serving.job.last_step(), message=message)
    print(f"headstudio: {message}", file=sys.stderr)


def _remove_leftovers(job: Job) -> None:
    """What a killed worker was writing when it died."""
    for folder in (job.folder, job.preview_folder):
        for path in folder.glob(".*.part"):
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Everything that is logged or warned about goes to the file, with the time."""
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error
    handler.handleError = lambda record: None  # a full disk is told once, not by every line that does not fit
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root, package = logging.getLogger(), logging.getLogger(__package__)
    level = package.level
    package.setLevel(logging.INFO)
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        package.setLevel(level)
        with contextlib.suppress(OSError):  # what does not fit is still in the buffer
            handler.close()
