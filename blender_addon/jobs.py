"""Follows the running job by a timer: progress to the panel, snapshots and the finished avatar into the scene."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import bpy

from ..engine.avatar.file import load_avatar
from ..engine.errors import UserError
from ..engine.job import DONE, QUEUED, RUNNING, Event, Job, JobRequest
from .engine_process import find_engine, last_lines, start_worker
from .import_avatar import import_avatar
from .preferences import jobs_folder, preferences

POLL = 0.2  # seconds


@dataclass
class Following:
    """The job that the panel shows. The folder is the truth; this is what was read of it so far."""

    job: Job
    process: subprocess.Popen
    read: int = 0  # byte of events.jsonl up to which it was read
    step: int = 0
    total: int = 0
    remaining: float = 0.0
    message: str = ""
    failed: bool = False
    state: str = QUEUED
    preview: str = ""  # name of the collection that shows the latest snapshot


_following: Following | None = None


def current() -> Following | None:
    return _following


def start(context: bpy.types.Context, request: JobRequest) -> None:
    """Create the job's folder, start the engine on it and follow it. Raises ``UserError``."""
    engine = find_engine(bpy.path.abspath(preferences(context).engine))
    job = Job.create(_free_folder(jobs_folder(context), request.name), request)
    follow(job, start_worker(engine, job))


def resume(context: bpy.types.Context, job: Job) -> None:
    """Start the engine again on a job that was stopped. Raises ``UserError``."""
    engine = find_engine(bpy.path.abspath(preferences(context).engine))
    job.withdraw_cancel()
    follow(job, start_worker(engine, job))


def follow(job: Job, process: subprocess.Popen) -> None:
    global _following
    events = job.events()
    _following = Following(job, process, read=events[-1].end if events else 0)
    if not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=POLL)


def unregister() -> None:
    """Let go of the job; its worker goes on without us."""
    global _following
    _following = None
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)


def _free_folder(folder: Path, name: str) -> Path:
    number = 1
    while (folder / f"{name}-{number}").exists():
        number += 1
    return folder / f"{name}-{number}"


def _tick() -> float | None:
    following = _following
    if following is None:
        return None
    try:
        over = _poll(following)
    except UserError as error:
        following.failed, following.message = True, str(error)
        over = True
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                area.tag_redraw()
    return None if over else POLL


def _poll(following: Following) -> bool:
    """Take in what is new. True when nothing more will come."""
    job = following.job
    if not job.exists():
        raise UserError(f"The job's folder {job.folder} has been deleted. Generate again.")
    # A worker that has ended has written its last event: look first, read second
    ended = following.process.poll() is not None
    following.state = job.state()
    snapshot = None
    for event in job.events(following.read):
        following.read = event.end
        if event.kind in ("preview", "done"):
            snapshot = event
        else:
            _take_in(following, event)
    if snapshot is not None:
        _show(following, snapshot)
    if following.state in (QUEUED, RUNNING) and not ended:
        return False
    if following.state != DONE and not following.message:
        lines = last_lines(job.log_path)
        following.message = f"The engine ended before the avatar was done. {lines[-1] if lines else ''}"
        following.failed = following.state != "cancelled"
    return True


def _take_in(following: Following, event: Event) -> None:
    if event.kind == "progress":
        following.step, following.total = event.step, int(event.data.get("total", 0))
        following.remaining = float(event.data.get("remaining", 0.0))
    elif event.kind in ("warning", "error"):
        following.message = str(event.data.get("message", ""))
        following.failed = event.kind == "error"
    elif event.kind == "cancelled":
        following.message = f"Stopped at step {event.step}; it can be resumed."


def _show(following: Following, event: Event) -> None:
    """Put the avatar of a snapshot, or the finished one, in the place of the snapshot before."""
    avatar = load_avatar(following.job.folder / event.data["avatar"])
    old = bpy.data.collections.get(following.preview) if following.preview else None
    if old is not None:
        _remove(old)
    rig = import_avatar(avatar, following.job.request.name, bpy.context.scene.collection)
    following.preview = "" if event.kind == "done" else rig.collection.name
    if event.kind == "done":
        following.message = f"{rig.collection.name} is done."
        bpy.ops.ed.undo_push(message="HeadStudio: Generate")


def _remove(collection: bpy.types.Collection) -> None:
    data = {item.data for item in collection.objects}
    splats = {item.headstudio.splats for item in data if isinstance(item, bpy.types.Mesh)}
    bpy.data.batch_remove([*collection.objects, collection])
    bpy.data.batch_remove([item for item in (data | splats) if item is not None and item.users == 0])
