"""The panel Jobs: the queue as a list, and the chosen job with its picture, progress, message and buttons."""

from __future__ import annotations

from typing import Any

import bpy

from ..engine.job import CANCELLED, DONE, FAILED, INTERRUPTED, QUEUED, RUNNING
from . import job_operators as operators
from . import jobs
from .job_picture import picture
from .job_reader import AT_WORK, BROKEN, DELETED, RESUMABLE, STARTING, STOPPING, WAITING, Entry
from .sidebar import SidebarPanel

_ICONS = {
    STARTING: "SORTTIME",
    RUNNING: "PLAY",
    STOPPING: "PAUSE",
    WAITING: "SORTTIME",
    QUEUED: "DOT",
    INTERRUPTED: "ERROR",
    FAILED: "ERROR",
    BROKEN: "ERROR",
    DELETED: "ERROR",
    CANCELLED: "PAUSE",
    DONE: "CHECKMARK",
}


class HeadStudioJobRow(bpy.types.PropertyGroup):
    """A row of the list; its ``name`` is the job's folder, and all else is looked up."""


class HeadStudioJobList(bpy.types.PropertyGroup):
    """The list of jobs as the window manager keeps it: neither saved nor undone."""

    jobs: bpy.props.CollectionProperty(type=HeadStudioJobRow)
    active: bpy.props.IntProperty(name="Chosen Job")


class HEADSTUDIO_UL_jobs(bpy.types.UIList):
    def draw_item(self, _context, layout, _data, item, _icon, _active_data, _active_property, _index=0, _flag=0):
        entry = jobs.find(item.name)
        if entry is None:
            return
        row = layout.row(align=True)
        row.label(text=entry.prompt, icon=_ICONS.get(entry.state, "DOT"))
        if entry.state in AT_WORK:
            part = row.row()
            part.ui_units_x = 4
            part.progress(factor=entry.share, text=f"{entry.share:.0%}")
            part.operator(operators.HEADSTUDIO_OT_cancel.bl_idname, text="", icon="X", emboss=False).job = item.name
        elif entry.state == WAITING:
            row.operator(operators.HEADSTUDIO_OT_cancel.bl_idname, text="", icon="X", emboss=False).job = item.name


class HEADSTUDIO_PT_jobs(SidebarPanel, bpy.types.Panel):
    bl_label = "Jobs"
    bl_parent_id = "HEADSTUDIO_PT_create"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return bool(jobs.entries() or jobs.notice())

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        if jobs.notice():
            draw_message(layout, jobs.notice(), alert=False)
        if not jobs.entries():
            return
        at_work = jobs.at_work()
        if at_work is not None:
            draw_progress(layout, at_work)
        listed = context.window_manager.headstudio
        row = layout.row()
        row.template_list(HEADSTUDIO_UL_jobs.__name__, "", listed, "jobs", listed, "active", rows=3)
        column = row.column(align=True)
        column.operator(operators.HEADSTUDIO_OT_remove_job.bl_idname, text="", icon="REMOVE")
        entry = jobs.chosen(context)
        order = column.column(align=True)
        order.enabled = entry is not None and entry.state == WAITING
        order.operator(operators.HEADSTUDIO_OT_move_job.bl_idname, text="", icon="TRIA_UP").by = -1
        order.operator(operators.HEADSTUDIO_OT_move_job.bl_idname, text="", icon="TRIA_DOWN").by = 1
        if jobs.is_stopped():
            waiting = sum(item.state == WAITING for item in jobs.entries())
            text = f"Go On ({waiting} waiting)"
            layout.operator(operators.HEADSTUDIO_OT_start_queue.bl_idname, text=text, icon="PLAY")
        layout.prop(context.scene.headstudio, "live_preview")
        if entry is not None:
            draw_job(layout.box(), entry)


def draw_progress(layout: bpy.types.UILayout, entry: Entry) -> None:
    """The job at work, whichever is chosen."""
    layout.progress(factor=entry.share, text=entry.text)
    row = layout.row(align=True)
    row.enabled = entry.state != STOPPING
    row.operator(operators.HEADSTUDIO_OT_pause.bl_idname, icon="PAUSE")
    row.operator(operators.HEADSTUDIO_OT_cancel.bl_idname, icon="CANCEL").job = entry.folder.name


def draw_job(layout: bpy.types.UILayout, entry: Entry) -> None:
    """The chosen job: its picture, what there is to say of it, and what can be done."""

    def button(operator: type[bpy.types.Operator], icon: Any, **options: Any) -> None:
        layout.operator(operator.bl_idname, icon=icon, **options).job = entry.folder.name

    icon = picture(entry)
    if icon:
        layout.template_icon(icon_value=icon, scale=7)
    if entry.state == WAITING:
        layout.label(text=f"Waits at step {entry.step}" if entry.step else "Waits its turn")
    if entry.message:
        draw_message(layout, entry.message, alert=entry.failed)
    if entry.log:
        draw_message(layout, " ".join(["Log:", *entry.log]), alert=False, lines=8)
    if entry.state in RESUMABLE:
        button(operators.HEADSTUDIO_OT_resume, "PLAY")
    something = entry.state == DONE or entry.state in AT_WORK or (entry.state in RESUMABLE and entry.snapshot)
    if something and not jobs.is_shown(entry):
        button(operators.HEADSTUDIO_OT_show_job, "IMPORT", text="Import" if entry.state == DONE else "Show in Scene")
    if entry.state == DONE:
        button(operators.HEADSTUDIO_OT_continue_job, "FORWARD")
    if entry.state != DELETED:
        button(operators.HEADSTUDIO_OT_open_log, "TEXT")


def draw_message(layout: bpy.types.UILayout, text: str, alert: bool, lines: int = 20) -> None:
    """Text over as many lines as the narrow sidebar needs, whose labels do not wrap by themselves; its end if long."""
    column = layout.column(align=True)
    column.scale_y = 0.8
    column.alert = alert
    for line in wrapped(text)[-lines:]:
        column.label(text=line)


def wrapped(text: str, width: int = 38) -> list[str]:
    """Lines of at most ``width`` characters, unless a word is longer."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


CLASSES = (HeadStudioJobRow, HeadStudioJobList, HEADSTUDIO_UL_jobs, HEADSTUDIO_PT_jobs)
