"""A thread that looks at the jobs' folder and works through its queue (no bpy).

Everything that touches a disk on account of a job happens here, so that a slow or vanished disk never holds up
Blender's main thread. What is found is published as a tuple of entries; avatars that somebody wants are loaded here and
fetched by the main thread. The thread never touches Blender's data.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.errors import UserError
from ..engine.job import DONE
from .engine_process import start_worker
from .job_queue import REMOVED, JobQueue, Ownership
from .job_reader import AT_WORK, BROKEN, DELETED, WAITING, Entry, JobReader, broken

if TYPE_CHECKING:
    from ..engine.avatar.file import Avatar
    from .avatar_parts import AvatarParts

BUSY, IDLE = 0.2, 1.0  # seconds between two looks while a job is at work, and otherwise


@dataclass(frozen=True)
class Loaded:
    """An avatar that has been read from a job's folder: the finished one, or else a snapshot."""

    folder: Path
    name: str  # of the avatar
    finished: AvatarParts | None = None
    snapshot: Avatar | None = None


class JobWatch:
    """Looks at ``folder`` from :meth:`start` to :meth:`stop`.

    ``entries``, ``paused``, ``trouble`` (why the queue was stopped, a sentence or nothing), ``fault`` (what went wrong
    in the last look) and ``other`` (the process of another Blender that works through this queue) are replaced as a
    whole, and so can be read at any time.
    """

    def __init__(self, folder: Path):
        self.queue = JobQueue(folder)
        self.entries: tuple[Entry, ...] = ()
        self.trouble = self.fault = ""
        self.other: int | None = None
        self.paused = False  # whether the folder's queue is paused, by whomever
        self.active = False  # whether this Blender was told to work through the queue
        self._engine: Path | None = None
        self._owner = Ownership(folder)
        self._folders: list[Path] = []
        self._readers: dict[Path, JobReader] = {}
        self._processes: dict[Path, subprocess.Popen] = {}
        self._wanted: dict[Path, int] = {}  # job to the snapshot that was last handed over
        self._unreadable: dict[Path, str] = {}
        self._loaded: dict[Path, Loaded] = {}
        self._lock = threading.Lock()  # of the three above
        self._dismissed: set[Path] = set()
        self._next_full = 0.0  # moment at which jobs that nobody works on are looked at again
        self._wake, self._end = threading.Event(), False
        self._free, self._holds = threading.Event(), 0
        self._free.set()
        self._thread = threading.Thread(target=self._run, name="HeadStudio jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Workers go on without us."""
        self._end = True
        self._wake.set()
        self._thread.join(timeout=1)  # a disk that hangs does not hold Blender up

    def wake(self) -> None:
        """Look now, at everything: something was changed in the folder."""
        self._next_full = 0.0
        self._wake.set()

    @contextlib.contextmanager
    def held(self) -> Iterator[JobWatch]:
        """Read no job meanwhile: Blender's main thread is about to write, and an artist waits for it.

        The main thread gives Python's lock away at each file it touches, and without this it would get it back only
        when the thread has parsed for its full 5 ms, every time.
        """
        self._holds += 1
        self._free.clear()
        try:
            yield self
        finally:
            self._holds -= 1
            if not self._holds:
                self._free.set()

    def work(self, engine: Path) -> None:
        """Start the queue's jobs with this engine, one after the other, from now on."""
        self._engine, self.active, self.trouble = engine, True, ""
        self.wake()

    def pause(self, at_work: Path | None) -> None:
        """Start no job any more, and stop the one at work for the time being. Raises ``UserError``."""
        self.active = False
        self.queue.pause(at_work)
        self.wake()

    def want(self, folder: Path) -> None:
        """Load this job's snapshots, and its avatar when it is done."""
        with self._lock:
            self._wanted[folder] = 0
            self._unreadable.pop(folder, None)
        self.wake()

    def forget(self, folder: Path) -> None:
        """Load nothing more of this job."""
        with self._lock:
            self._wanted.pop(folder, None)
            self._loaded.pop(folder, None)

    def dismiss(self, folder: Path) -> None:
        """Somebody has removed this job: its absence is no news."""
        self.forget(folder)
        self._dismissed.add(folder)
        self.wake()

    def wants(self, folder: Path) -> bool:
        return folder in self._wanted

    def fetch(self) -> Loaded | None:
        """The next avatar that was loaded, if any; of several snapshots of a job only the latest is kept."""
        with self._lock:
            return self._loaded.pop(next(iter(self._loaded))) if self._loaded else None

    def put_back(self, loaded: Loaded) -> None:
        """It could not be used yet: keep it for later, unless a newer one has come."""
        with self._lock:
            self._loaded.setdefault(loaded.folder, loaded)

    def refuse(self, loaded: Loaded, why: str) -> None:
        """Load this job's avatar no more, and say why where the job stands in the list."""
        with self._lock:
            self._wanted.pop(loaded.folder, None)
            self._unreadable[loaded.folder] = why
        self.wake()

    @property
    def at_work(self) -> Entry | None:
        """The job that an engine serves now."""
        return next((entry for entry in self.entries if entry.state in AT_WORK), None)

    def entry(self, folder: Path) -> Entry | None:
        return next((entry for entry in self.entries if entry.folder == folder), None)

    def _run(self) -> None:
        from ..engine.train import settings  # noqa: F401 (every request needs it: here it holds up nobody's click)

        while not self._end:
            self._wake.clear()
            try:
                self.look()
                self.fault = ""
            except Exception as error:  # a thread that dies would leave the panel standing still for ever
                fault = f"The jobs in {self.queue.folder} cannot be followed: {error}. See the system console."
                if fault != self.fault:
                    traceback.print_exc()
                self.fault = fault
            self._wake.wait(BUSY if self._processes or self.at_work else IDLE)
        self._owner.release()

    def look(self) -> None:
        """Read the folder, start what is due, load what is wanted: one round of the thread."""
        before = {entry.folder: entry for entry in self.entries}
        if time.monotonic() >= self._next_full:
            self._next_full = time.monotonic() + IDLE
            self._clean_up()
            self._folders = self.queue.folders()
            for folder in set(self._readers) - set(self._folders):
                if self._readers[folder].job.exists() or not self._is_missed(folder, before.get(folder)):
                    del self._readers[folder]
            settled: set[Path] = set()
        else:
            settled = {e.folder for e in self.entries if e.state not in (*AT_WORK, WAITING)}
        settled -= set(self._processes)
        folders = dict.fromkeys([*self._folders, *self._readers])
        seen = [before[folder] if folder in settled else self._read(folder) for folder in folders]
        seen.sort(key=_rank)
        self.entries, self.paused = tuple(seen), self.queue.paused
        try:
            self._advance()
        except UserError as error:
            self.active, self.trouble = False, str(error)
        for entry in seen:
            self._load(entry)

    def _is_missed(self, folder: Path, entry: Entry | None) -> bool:
        """Whether a folder that has vanished is worth a message."""
        if folder in self._dismissed:
            self._dismissed.discard(folder)
            return False
        unfinished = entry is not None and entry.state in (*AT_WORK, WAITING, DELETED)
        return unfinished or folder in self._wanted or folder in self._processes

    def _read(self, folder: Path) -> Entry:
        self._free.wait()
        process = self._processes.get(folder)
        alive = process is not None and process.poll() is None
        try:
            if folder not in self._readers:
                self._readers[folder] = JobReader(folder)
            entry = self._readers[folder].read(alive)
        except UserError as error:
            return broken(folder, error)
        if process is not None and not alive:
            del self._processes[folder]
        problem = self._unreadable.get(folder)
        return entry if problem is None else replace(entry, message=problem, failed=True)

    def _advance(self) -> None:
        """Start the first waiting job if none is at work. Only one Blender does so."""
        waiting = [entry for entry in self.entries if entry.state == WAITING]
        if not self.active or not (waiting or self._processes):
            self._owner.release()
            self.other = None
            return
        if not self._owner.take():
            self.other = self._owner.holder()
            return
        self.other = None
        if waiting and self.at_work is None and not self._processes and not self.paused:
            self._launch(waiting[0].folder)

    def _launch(self, folder: Path) -> None:
        reader = self._readers[folder]
        try:
            reader.job.withdraw_cancel()
            reader.launch()
            self._processes[folder] = start_worker(self._engine, reader.job)
        except UserError:
            reader.launched = None
            raise
        finally:
            self.queue.take_out(folder)  # also where it cannot be started: or it would be tried for ever
        self.entries = tuple(reader.read(alive=True) if e.folder == folder else e for e in self.entries)

    def _load(self, entry: Entry) -> None:
        """Read the avatar of a wanted job if there is a newer one than was handed over."""
        done = entry.state == DONE
        with self._lock:
            last = self._wanted.get(entry.folder)
        if last is None or entry.state in (BROKEN, DELETED) or (not done and entry.snapshot <= last):
            return
        from ..engine.avatar.file import load_avatar  # not when Blender starts: see import_avatar.py
        from .avatar_parts import avatar_parts, storable

        job = self._readers[entry.folder].job
        path = job.avatar_path if done else job.preview_folder / "snapshot.avatar.npz"
        name = job.request.name
        try:
            avatar = load_avatar(path)
            loaded = (
                Loaded(entry.folder, name, finished=avatar_parts(avatar))
                if done
                else Loaded(entry.folder, name, snapshot=replace(avatar, splats=storable(avatar.splats)))
            )
        except UserError as error:
            with self._lock:
                self._wanted.pop(entry.folder, None)
                self._unreadable[entry.folder] = str(error)
            return
        with self._lock:
            if self._wanted.get(entry.folder) != last:
                return  # meanwhile nobody wants it any more, or it is wanted anew
            if done:
                del self._wanted[entry.folder]
            else:
                self._wanted[entry.folder] = entry.snapshot
            self._loaded[entry.folder] = loaded

    def _clean_up(self) -> None:
        for folder in self.queue.folder.glob(f"{REMOVED}*"):
            shutil.rmtree(folder, ignore_errors=True)


def _rank(entry: Entry) -> tuple[int, float]:
    """The job at work first, then those that wait, then the others, the newest first."""
    if entry.state in AT_WORK:
        return 0, 0.0
    return (1, entry.place) if entry.place is not None else (2, -entry.created)
