"""The panel Create of the sidebar tab HeadStudio: what an avatar is to be, and Generate."""

from __future__ import annotations

import random

import bpy

from . import jobs
from .job_operators import MAX_SEED, HEADSTUDIO_OT_generate, HEADSTUDIO_OT_open_preferences
from .sidebar import SidebarPanel


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
    start_from: bpy.props.StringProperty(
        name="Start From",
        subtype="FILE_PATH",
        description="An avatar file on the same head, which training goes on from. Empty: start anew",
    )
    live_preview: bpy.props.BoolProperty(
        name="Live Preview", default=True, description="Show the avatar in the scene while it is being made"
    )
    seed: bpy.props.IntProperty(name="Seed", min=0, description="The same seed gives the same avatar")


class HEADSTUDIO_OT_random_seed(bpy.types.Operator):
    """Throw the dice for another seed"""

    bl_idname = "headstudio.random_seed"
    bl_label = "Random Seed"
    bl_options = {"UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.scene.headstudio.seed = random.randint(0, MAX_SEED)
        return {"FINISHED"}


class HEADSTUDIO_PT_create(SidebarPanel, bpy.types.Panel):
    bl_label = "Create"

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
        if asked.start_from:
            layout.prop(asked, "start_from")
        text = "Generate" if jobs.at_work() is None else "Add to the Queue"
        row = layout.row(align=True)
        row.operator(HEADSTUDIO_OT_generate.bl_idname, text=text, icon="USER")
        row.operator(HEADSTUDIO_OT_open_preferences.bl_idname, text="", icon="PREFERENCES")
