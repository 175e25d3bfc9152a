"""The sidebar tab HeadStudio: the prompt, Generate, and the job at work."""

from __future__ import annotations

import random

import bpy

from ..engine.errors import UserError
from ..engine.job import RUNNING, Job, JobRequest
from . import jobs


class HeadStudioScene(bpy.types.PropertyGroup):
    """What the Create panel asks for; kept in the scene."""

    prompt: bpy.props.StringProperty(
        name="Prompt",
        description="The head in words, for example: a smiling old man with a white beard and a red hat",
    )
    negative: bpy.props.StringProperty(name="Negative", description="What to keep away from. Empty: the paper's")
    preset: bpy.props.EnumProperty(
        name="Preset",
        items=(
            ("draft", "Draft", "Minutes on the CPU, with the built-in prior"),
            ("standard", "Standard", "For a GPU and a Stable-Diffusion-class prior"),
            ("paper", "Paper", "The paper's numbers: hours on a large GPU"),
        ),
    )
    prior: bpy.props.StringProperty(
        name="Prior", default="starter", description="starter (built in), a diffusers folder, or a hub id"
    )
    head: bpy.props.StringProperty(name="Head", default="default", description="default (built in) or a FLAME file")
    steps: bpy.props.IntProperty(name="Steps", min=0, description="Training steps. 0: the preset's")
    search: bpy.props.StringProperty(name="Search", description="Show the sliders whose name holds this")
    seed: bpy.props.IntProperty(name="Seed", min=0, description="The same seed gives the same avatar")


class HEADSTUDIO_OT_generate(bpy.types.Operator):
    """Make an avatar of the prompt. Blender stays free for other work"""

    bl_idname = "headstudio.generate"
    bl_label = "Generate"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        following = jobs.current()
        return following is None or following.state != RUNNING

    def execute(self, context: bpy.types.Context) -> set[str]:
        asked = context.scene.headstudio
        try:
            request = JobRequest(
                prompt=asked.prompt,
                negative=asked.negative or None,
                seed=asked.seed,
                steps=asked.steps or None,
                preset=asked.preset,
                prior=asked.prior,
                head=asked.head,
            )
            jobs.start(context, request)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class HEADSTUDIO_OT_cancel(bpy.types.Operator):
    """Stop after the step at work. The job can be resumed"""

    bl_idname = "headstudio.cancel"
    bl_label = "Cancel"

    def execute(self, _context: bpy.types.Context) -> set[str]:
        following = jobs.current()
        if following is None:
            return {"CANCELLED"}
        try:
            following.job.request_cancel()
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class HEADSTUDIO_OT_resume(bpy.types.Operator):
    """Go on from the last checkpoint"""

    bl_idname = "headstudio.resume"
    bl_label = "Resume"

    def execute(self, context: bpy.types.Context) -> set[str]:
        following = jobs.current()
        if following is None:
            return {"CANCELLED"}
        try:
            jobs.resume(context, Job.open(following.job.folder))
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class HEADSTUDIO_OT_random_seed(bpy.types.Operator):
    """Throw the dice for another seed"""

    bl_idname = "headstudio.random_seed"
    bl_label = "Random Seed"
    bl_options = {"UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.scene.headstudio.seed = random.randrange(2**31)
        return {"FINISHED"}


class HEADSTUDIO_PT_create(bpy.types.Panel):
    bl_label = "Create"
    bl_category = "HeadStudio"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"

    def draw(self, context: bpy.types.Context) -> None:
        layout, asked = self.layout, context.scene.headstudio
        layout.use_property_split = True
        layout.use_property_decorate = False
        column = layout.column()
        column.use_property_split = False
        column.prop(asked, "prompt", text="", placeholder="A clown with green hair")
        layout.prop(asked, "negative")
        layout.prop(asked, "preset")
        layout.prop(asked, "steps")
        layout.prop(asked, "prior")
        layout.prop(asked, "head")
        row = layout.row(align=True)
        row.prop(asked, "seed")
        row.operator(HEADSTUDIO_OT_random_seed.bl_idname, text="", icon="FILE_REFRESH")
        layout.operator(HEADSTUDIO_OT_generate.bl_idname, icon="USER")
        following = jobs.current()
        if following is not None:
            self._draw_job(layout.box(), following)

    def _draw_job(self, layout: bpy.types.UILayout, following: jobs.Following) -> None:
        layout.label(text=following.job.request.name)
        if following.state == RUNNING:
            total = max(following.total, 1)
            minutes, seconds = divmod(round(following.remaining), 60)
            layout.progress(
                factor=min(following.step / total, 1.0),
                text=f"Step {following.step} of {following.total}, {minutes}:{seconds:02d} left"
                if following.total
                else "Starting",
            )
            layout.operator(HEADSTUDIO_OT_cancel.bl_idname, icon="CANCEL")
        elif following.state in ("cancelled", "interrupted", "failed"):
            layout.operator(HEADSTUDIO_OT_resume.bl_idname, icon="PLAY")
        if following.message:
            column = layout.column(align=True)
            column.alert = following.failed
            for line in wrapped(following.message):
                column.label(text=line)


def wrapped(text: str, width: int = 38) -> list[str]:
    """Lines for the narrow sidebar, whose labels do not wrap by themselves."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
