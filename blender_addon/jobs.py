"""Brings what the watching thread finds into Blender: the list of jobs, snapshots and finished avatars.

A timer looks a few times a second at what ``job_watch.JobWatch`` has published. It reads no file itself.
"""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path

import bpy

from ..engine.job import JobRequest
from . import framing
from .engine_process import find_engine
from .import_avatar import add_avatar, make_active
from .job_preview import jobs_with_preview, remove_preview, show_preview
from .job_reader import WAITING, Entry
from .job_watch import JobWatch, Loaded
from .preferences import jobs_folder, preferences

TICK = 0.2  # seconds


class _Following:
    """All that this module keeps while the extension is enabled."""

    def __init__(self) -> None:
        self.watch: JobWatch | None = None
        self.setting: str | None = None  # the preference that the watched folder comes from
        self.scenes: dict[Path, str] = {}  # job to the name of the scene that its avatar is for
        self.views: dict[Path, framing.Poses] = {}  # job to the views when its avatar was asked for
        self.fault = ""  # what went wrong in the last round
        self.held = ""  # why an avatar that was loaded does not come into the scene yet
        self.choose = ""  # the job to be chosen in the list as soon as it stands there
        self.undone = False  # whether something was undone or redone since the last round
        self.drawn: tuple = ()  # what the panel and the status bar show


_state = _Following()


def register() -> None:
    bpy.app.handlers.load_post.append(_on_load)
    bpy.app.handlers.undo_post.append(_on_undo)
    bpy.app.handlers.redo_post.append(_on_undo)
    if not bpy.app.background:  # a render farm follows no jobs
        bpy.app.timers.register(_tick, first_interval=1.0, persistent=True)


def unregister() -> None:
    """Let go of all jobs; a worker that runs goes on without us."""
    bpy.app.handlers.load_post.remove(_on_load)
    bpy.app.handlers.undo_post.remove(_on_undo)
    bpy.app.handlers.redo_post.remove(_on_undo)
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    _stop()


def watching(context: bpy.types.Context) -> JobWatch:
    """The thread that follows the jobs of the folder in the preferences; started at the first call."""
    setting = preferences(context).jobs
    if _state.watch is None or setting != _state.setting:
        _stop()
        _state.watch, _state.setting = JobWatch(jobs_folder(context)), setting
        _state.watch.start()
        _adopt_previews()
    return _state.watch


def entries() -> tuple[Entry, ...]:
    """All jobs, the one at work first, then those that wait in their order, then the others."""
    return _state.watch.entries if _state.watch is not None else ()


def find(name: str) -> Entry | None:
    """The job whose folder has this name."""
    return next((entry for entry in entries() if entry.folder.name == name), None)


def chosen(context: bpy.types.Context) -> Entry | None:
    """The job that is chosen in the list."""
    listed = context.window_manager.headstudio
    return find(listed.jobs[listed.active].name) if listed.active < len(listed.jobs) else None


def at_work() -> Entry | None:
    return _state.watch.at_work if _state.watch is not None else None


def is_shown(entry: Entry) -> bool:
    """Whether the job's avatar will come into the scene by itself."""
    return _state.watch is not None and _state.watch.wants(entry.folder)


def is_stopped() -> bool:
    """Whether jobs wait, and none will be started before somebody says so."""
    watch = _state.watch
    if watch is None or watch.at_work is not None or all(entry.state != WAITING for entry in watch.entries):
        return False
    return watch.paused or not watch.active


def notice() -> str:
    """What keeps jobs or avatars from moving, for the artist; nothing if all is well."""
    watch = _state.watch
    if watch is None:
        return ""
    if watch.trouble:
        return watch.trouble
    if watch.other is not None:
        return f"Another Blender (process {watch.other}) works through this queue; jobs added here are made by it."
    return watch.fault or _state.fault or _state.held


def generate(context: bpy.types.Context, request: JobRequest) -> None:
    """Put a new job at the end of the queue, and work through it. Raises ``UserError``."""
    engine = _engine(context)
    with watching(context).held() as watch:
        job = watch.queue.add(request)
        show(context, job.folder)
        if watch.at_work is None:
            _state.choose = job.folder.name
            watch.queue.go_on()
        watch.work(engine)


def resume(context: bpy.types.Context, folder: Path | None) -> None:
    """Put a job that was stopped into the queue again; None: go on with those that wait. Raises ``UserError``."""
    engine = _engine(context)
    with watching(context).held() as watch:
        if folder is not None:
            watch.queue.put_last(folder)
            show(context, folder)
        watch.queue.go_on()
        watch.work(engine)


def show(context: bpy.types.Context, folder: Path) -> None:
    """Bring the job's snapshots and its finished avatar into this scene."""
    _state.scenes[folder] = context.scene.name
    _state.views[folder] = framing.poses(context.window_manager)
    watching(context).want(folder)


def forget(folder: Path) -> None:
    """Nothing more of this job comes into the scene, and what is there of its snapshots goes."""
    _state.scenes.pop(folder, None)
    _state.views.pop(folder, None)
    if _state.watch is not None:
        _state.watch.dismiss(folder)
    remove_preview(folder)


def _engine(context: bpy.types.Context) -> Path:
    return find_engine(bpy.path.abspath(preferences(context).engine))


def _stop() -> None:
    if _state.watch is not None:
        _state.watch.stop()
    _state.watch, _state.setting, _state.drawn = None, None, ()
    _state.scenes.clear()
    _state.views.clear()


@bpy.app.handlers.persistent
def _on_load(*_) -> None:
    """Another file: what was asked for in the one before is offered, not forced upon this one."""
    if _state.watch is not None:
        for folder in _state.scenes:
            _state.watch.forget(folder)
    _state.scenes.clear()
    _state.views.clear()
    _state.drawn = ()
    if _state.watch is not None:
        _adopt_previews()


def _adopt_previews() -> None:
    """Go on where a saved file shows a job's snapshot."""
    for folder, scene in jobs_with_preview().items():
        _state.scenes[folder] = scene
        _state.watch.want(folder)


@bpy.app.handlers.persistent
def _on_undo(*_) -> None:
    _state.undone = True


def _tick() -> float:
    try:
        step(bpy.context)
        _state.fault = ""
    except Exception as error:  # a timer that raises is never called again
        fault = f"The jobs cannot be shown: {error}. See the system console."
        if fault != _state.fault:  # the same every round would flood the console
            traceback.print_exc()
        _state.fault = fault
    return TICK


def step(context: bpy.types.Context) -> None:
    """One round of the timer: at most one avatar is taken in, and what has changed is drawn."""
    watch = watching(context)
    if _state.undone:
        _state.undone = False
        for folder in jobs_with_preview():
            if folder not in _state.scenes:  # undo has brought back what nothing will replace any more
                remove_preview(folder)
    loaded = watch.fetch()
    if loaded is None:
        _state.held = ""
    else:
        try:
            if not _take_in(context, loaded):
                watch.put_back(loaded)
        except Exception as error:  # it would fail again in every round
            traceback.print_exc()
            watch.refuse(loaded, f"The avatar cannot be brought into the scene: {error}. See the system console.")
    shown = (watch.entries, notice(), is_stopped())
    if shown != _state.drawn:
        _state.drawn = shown
        _fill_list(context, watch.entries)
        _redraw(context)


def _take_in(context: bpy.types.Context, loaded: Loaded) -> bool:
    """Bring an avatar into the scene. False if that would disturb what the artist does just now."""
    if not any(entry.folder == loaded.folder for entry in entries()):
        return True  # removed meanwhile
    windows = context.window_manager.windows
    scene = bpy.data.scenes.get(_state.scenes.get(loaded.folder, ""))
    scene = scene or (windows[0].scene if windows else context.scene)  # it may have been deleted or renamed
    window = next((window for window in windows if window.scene == scene), None)
    _state.held = _obstacle(loaded, scene, window if windows else None, bool(windows))
    if _state.held:
        return False
    if loaded.finished is None:
        if scene.headstudio.live_preview:
            shown = show_preview(loaded.folder, loaded.name, loaded.snapshot, scene)
            framing.show(shown, context.window_manager, _state.views.pop(loaded.folder, {}))
        return True
    with _seen_from(context, window):
        rig = add_avatar(loaded.finished, loaded.name, scene.collection)
        remove_preview(loaded.folder)
        if not context.view_layer.objects.selected:  # otherwise the artist is at work on something else
            make_active(rig.mesh, context.view_layer)
        bpy.ops.ed.undo_push(message="HeadStudio: Generate")
    framing.show(rig.mesh, context.window_manager, _state.views.pop(loaded.folder, {}))
    _state.scenes.pop(loaded.folder, None)
    return True


def _obstacle(loaded: Loaded, scene: bpy.types.Scene, window: bpy.types.Window | None, windowed: bool) -> str:
    """Why an avatar cannot come in at this moment, as a sentence; nothing if it can."""
    if bpy.app.is_job_running("RENDER"):
        return f"{loaded.name} comes in when the render is done."
    if loaded.finished is None:
        return ""
    if windowed and window is None:
        return f"{loaded.name} is done; it comes in when the scene {scene.name} is shown."
    with _seen_from(bpy.context, window):
        if bpy.context.mode != "OBJECT":  # undo within another mode knows the edited object alone
            return f"{loaded.name} is done; it comes in when you go back to Object Mode."
    if window is not None and any(item.bl_idname.startswith("TRANSFORM_OT_") for item in window.modal_operators):
        return f"{loaded.name} is done; it comes in when you let go."
    return ""


def _seen_from(context: bpy.types.Context, window: bpy.types.Window | None):
    """A timer knows no window of its own; operators need one."""
    return contextlib.nullcontext() if window is None else context.temp_override(window=window)


def _fill_list(context: bpy.types.Context, found: tuple[Entry, ...]) -> None:
    """The rows of the panel's list follow the jobs; the chosen one stays chosen, and a new one is."""
    listed = context.window_manager.headstudio
    names = [entry.folder.name for entry in found]
    rows = [row.name for row in listed.jobs]
    choice = rows[listed.active] if listed.active < len(rows) else ""
    if rows != names:
        listed.jobs.clear()
        for name in names:
            listed.jobs.add().name = name
    if _state.choose in names:
        choice, _state.choose = _state.choose, ""
    at = names.index(choice) if choice in names else 0
    if listed.active != at:
        listed.active = at


def _redraw(context: bpy.types.Context) -> None:
    """The sidebars and the status bar; not the viewports, which would draw their splats again."""
    for window in context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                for region in area.regions:
                    if region.type == "UI":
                        region.tag_redraw()
        if not window.modal_operators:  # whose hints may stand in the status bar
            window.workspace.status_text_set_internal(None)
