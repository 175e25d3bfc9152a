"""How a run tells the world where it is: one protocol, a silent reporter, and one for the terminal."""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tqdm import tqdm

if TYPE_CHECKING:
    from ..avatar.file import Avatar


@dataclass(frozen=True)
class Progress:
    """One finished step."""

    step: int  # finished steps, counted from 1
    total: int
    losses: dict[str, float]  # parts of the loss by name
    splats: int
    seconds: float  # since this run (or its continuation) began
    remaining: float  # seconds to the end at the speed of the latest steps


class Reporter(Protocol):
    """What the loop calls. Every call comes from the loop's own thread, between two steps."""

    def progress(self, progress: Progress) -> None:
        """After every step."""
        ...

    def snapshot(self, avatar: Avatar, step: int) -> None:
        """Every ``settings.snapshot_every`` steps, with the avatar as it is."""
        ...

    def warning(self, message: str) -> None:
        """Something went wrong and the run goes on; a sentence for the user."""
        ...

    def should_stop(self) -> bool:
        """Asked after every step. True: the loop writes a checkpoint and raises ``TrainingStopped``."""
        ...


class SilentReporter:
    """Does nothing: a base class for reporters that care about some of the calls."""

    def progress(self, progress: Progress) -> None:
        pass

    def snapshot(self, avatar: Avatar, step: int) -> None:
        pass

    def warning(self, message: str) -> None:
        pass

    def should_stop(self) -> bool:
        return False


class TerminalReporter(SilentReporter):
    """A progress bar. As a context manager it turns Ctrl-C into a stop after the step; a second Ctrl-C breaks off."""

    def __init__(self, description: str = "training") -> None:
        self._description = description
        self._bar: tqdm | None = None
        self._stop = False

    def __enter__(self) -> TerminalReporter:
        self._handler = None
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        if self._bar is not None:
            self._bar.close()

    def _interrupt(self, *_) -> None:
        if self._stop:
            raise KeyboardInterrupt
        self._stop = True

    def progress(self, progress: Progress) -> None:
        if self._bar is None:
            # The first report of a continued run starts the bar where the run goes on.
            self._bar = tqdm(total=progress.total, initial=progress.step - 1, desc=self._description, unit="step")
        losses = {name: f"{value:.3g}" for name, value in progress.losses.items()}
        self._bar.set_postfix(splats=progress.splats, **losses, refresh=False)
        self._bar.update(progress.step - self._bar.n)

    def warning(self, message: str) -> None:
        tqdm.write(message, file=sys.stderr)  # standard output is for results

    def should_stop(self) -> bool:
        return self._stop


class Clock:
    """Seconds that steps take, smoothed, and the time that is left."""

    def __init__(self, seconds_per_step: float | None = None) -> None:
        self._mean = seconds_per_step

    def remaining(self, step_seconds: float, steps_left: int) -> float:
        """Takes in one step's duration; a slow step (a snapshot, a checkpoint) moves the estimate by a twentieth."""
        self._mean = step_seconds if self._mean is None else 0.95 * self._mean + 0.05 * step_seconds
        return self._mean * steps_left
