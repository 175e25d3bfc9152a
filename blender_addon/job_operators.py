"""What can be done to a job: generate, pause, cancel, resume, reorder, remove, import, continue, and see its log."""

from __future__ import annotations

from pathlib import Path

import bpy

from ..engine.errors import UserError
from ..engine.job import DONE, Job, JobRequest
from . import jobs
from .job_reader import AT_WORK, BROKEN, DELETED, RESUMABLE, STARTING, Entry
from .preferences import PACKAGE

MAX_SEED = 2**31 - 1  # of a property of Blender


class HEADSTUDIO_OT_generate(bpy.types.Operator):
    """Make an avatar of the prompt. Blender stays free for other work; further jobs wait their turn"""

    bl_idname = "headstudio.generate"
    bl_label = "Generate"

    def execute(self, context: bpy.types.Context) -> set[str]:
        asked = context.scene.headstudio
        try:
            jobs.generate(
                context,
                JobRequest(
                    prompt=asked.prompt,
                    negative=asked.negative or None,
                    seed=asked.seed,
                    steps=asked.steps or None,
                    preset=asked.preset,
                    prior=asked.prior,
                    head=asked.head,
                    start_from=bpy.path.abspath(asked.start_from) if asked.start_from else None,
                ),
            )
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class OnJob:
    """Operators on one job: the one whose folder is named ``job``, or else the one that is chosen in the list."""

    job: bpy.props.StringProperty(
        name="Job", description="Name of the job's folder. Empty: the chosen one", options={"HIDDEN", "SKIP_SAVE"}
    )

    def execute(self, context: bpy.types.Context) -> set[str]:
        entry = jobs.find(self.job) if self.job else jobs.chosen(context)
        if entry is None:
            self.report({"ERROR"}, f"There is no job {self.job}".strip() + ".")
            return {"CANCELLED"}
        with jobs.watching(context).held() as watch:
            try:
                self.act(context, entry)
            except UserError as error:
                self.report({"ERROR"}, str(error))
                return {"CANCELLED"}
            watch.wake()
        return {"FINISHED"}

    def act(self, context: bpy.types.Context, entry: Entry) -> None:
        """Do it. Raises ``UserError``."""
        raise NotImplementedError


class HEADSTUDIO_OT_pause(bpy.types.Operator):
    """Keep a checkpoint after this step, stop, and free the processor and the graphics card. No other job is started"""

    bl_idname = "headstudio.pause"
    bl_label = "Pause"

    def execute(self, context: bpy.types.Context) -> set[str]:
        with jobs.watching(context).held() as watch:
            entry = watch.at_work
            try:
                watch.pause(entry.folder if entry is not None else None)
            except UserError as error:
                self.report({"ERROR"}, str(error))
                return {"CANCELLED"}
        return {"FINISHED"}


class HEADSTUDIO_OT_start_queue(bpy.types.Operator):
    """Work through the jobs that wait, one after the other"""

    bl_idname = "headstudio.start_queue"
    bl_label = "Go On"

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            jobs.resume(context, None)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class HEADSTUDIO_OT_cancel(OnJob, bpy.types.Operator):
    """Stop this job after the step at work, or take it out of the queue. It can be resumed"""

    bl_idname = "headstudio.cancel"
    bl_label = "Cancel"

    def act(self, context: bpy.types.Context, entry: Entry) -> None:
        jobs.watching(context).queue.take_out(entry.folder)
        if entry.state in AT_WORK:
            Job.open(entry.folder).request_cancel()


class HEADSTUDIO_OT_resume(OnJob, bpy.types.Operator):
    """Go on from the last checkpoint, when the jobs before it are done"""

    bl_idname = "headstudio.resume"
    bl_label = "Resume"

    def act(self, context: bpy.types.Context, entry: Entry) -> None:
        if entry.state not in RESUMABLE:
            raise UserError(f"The job {entry.folder.name} is {entry.state}: there is nothing to resume.")
        jobs.resume(context, entry.folder)


class HEADSTUDIO_OT_move_job(OnJob, bpy.types.Operator):
    """Change the order in which the waiting jobs are made"""

    bl_idname = "headstudio.move_job"
    bl_label = "Move Job"

    by: bpy.props.IntProperty(name="By", default=-1, description="Places; negative for earlier")

    def act(self, context: bpy.types.Context, entry: Entry) -> None:
        jobs.watching(context).queue.move(entry.folder, self.by)


class HEADSTUDIO_OT_remove_job(OnJob, bpy.types.Operator):
    """Take this job off the list. Avatars that are in the scene stay there"""

    bl_idname = "headstudio.remove_job"
    bl_label = "Remove Job"

    files: bpy.props.BoolProperty(
        name="Delete its files, too",
        description="The finished avatar, checkpoints and log; otherwise the folder stays on the disk",
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self, confirm_text="Remove")

    def act(self, context: bpy.types.Context, entry: Entry) -> None:
        if entry.state == STARTING:
            raise UserError("This job is being started. Cancel it first.")
        jobs.watching(context).queue.remove(entry.folder, self.files)
        jobs.forget(entry.folder)


class HEADSTUDIO_OT_show_job(OnJob, bpy.types.Operator):
    """Bring this job's avatar into the scene: the finished one, or what there is of it, which follows the job"""

    bl_idname = "headstudio.show_job"
    bl_label = "Import"

    def act(self, context: bpy.types.Context, entry: Entry) -> None:
        if entry.state in (BROKEN, DELETED):
            raise UserError(entry.message)
        jobs.show(context, entry.folder)


class HEADSTUDIO_OT_continue_job(OnJob, bpy.types.Operator):
    """Start the next job from this finished avatar: its request is put into the panel, for you to change the prompt"""

    bl_idname = "headstudio.continue_job"
    bl_label = "Continue with Another Prompt"
    bl_options = {"UNDO"}

    def act(self, context: bpy.types.Context, entry: Entry) -> None:
        if entry.state != DONE:
            raise UserError(f"The job {entry.folder.name} is not done yet. Resume it first.")
        job = Job.open(entry.folder)
        before, asked = job.request, context.scene.headstudio
        asked.prompt, asked.negative = before.prompt, before.negative or ""
        asked.preset, asked.prior, asked.head = before.preset, before.prior, before.head
        asked.steps, asked.seed = before.steps or 0, min(before.seed, MAX_SEED)
        asked.start_from = str(job.avatar_path)
        self.report({"INFO"}, "Change the prompt and press Generate")


class HEADSTUDIO_OT_open_log(OnJob, bpy.types.Operator):
    """Open the job's log, or its folder where there is no log yet"""

    bl_idname = "headstudio.open_log"
    bl_label = "Open Log"

    def act(self, context: bpy.types.Context, entry: Entry) -> None:
        log = entry.folder / "log.txt"
        path: Path = log if log.exists() else entry.folder
        if not path.exists():
            raise UserError(f"The job's folder {entry.folder} has been deleted; its log went with it.")
        bpy.ops.wm.path_open(filepath=str(path))


class HEADSTUDIO_OT_open_preferences(bpy.types.Operator):
    """Show where the engine is and where jobs are kept"""

    bl_idname = "headstudio.open_preferences"
    bl_label = "Preferences"

    def execute(self, context: bpy.types.Context) -> set[str]:
        return bpy.ops.preferences.addon_show(module=PACKAGE)


CLASSES = (
    HEADSTUDIO_OT_generate,
    HEADSTUDIO_OT_pause,
    HEADSTUDIO_OT_start_queue,
    HEADSTUDIO_OT_cancel,
    HEADSTUDIO_OT_resume,
    HEADSTUDIO_OT_move_job,
    HEADSTUDIO_OT_remove_job,
    HEADSTUDIO_OT_show_job,
    HEADSTUDIO_OT_continue_job,
    HEADSTUDIO_OT_open_log,
    HEADSTUDIO_OT_open_preferences,
)
