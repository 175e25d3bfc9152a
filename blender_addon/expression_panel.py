"""The Expressions panel: the sliders by group, left and right as one where linked, and the presets' menus."""

from __future__ import annotations

import re
from typing import Literal

import bpy

from ..engine.errors import UserError
from ..engine.heads.expressions import PRESETS
from . import expressions, keying, timeline, user_presets
from .sidebar import AvatarPanel

VISEME = "viseme "
OPEN_AT_FIRST = ("Jaw", "Mouth")


class HeadStudioExpressions(bpy.types.PropertyGroup):
    """How the panel shows the sliders; kept in the scene."""

    search: bpy.props.StringProperty(
        name="Search", description="Show the sliders whose name holds this", options={"TEXTEDIT_UPDATE"}
    )
    linked: bpy.props.BoolProperty(
        name="Left and Right", description="One slider for both sides, and for both eyes' gaze", default=True
    )
    moved: bpy.props.BoolProperty(name="Only Moved", description="Show the sliders that are not at rest")
    strength: bpy.props.FloatProperty(
        name="Strength", description="How much of a preset is applied", default=1.0, min=0.0, max=2.0, soft_max=1.0
    )


def _pair_keys(pairs: bpy.types.PropertyGroup, pair: str) -> list[bpy.types.ShapeKey]:
    blocks = pairs.id_data.key_blocks
    return [blocks[name] for name in expressions.PAIRS[pair] if name in blocks]


def _pair_property(pair: str):
    """A slider for both sides: it shows their mean and sets both, within the undo step and the drag of the button."""

    def get(self) -> float:
        keys = _pair_keys(self, pair)
        return sum(key.value for key in keys) / max(len(keys), 1)

    def set_both(self, value: float) -> None:
        keys = _pair_keys(self, pair)
        for key in keys:
            key.value = value
        keying.auto_key(bpy.context, [expressions.slider_channel(key) for key in keys])

    return bpy.props.FloatProperty(
        name=title(pair),
        description="Left and right together",
        min=0.0,
        max=1.0,
        precision=3,
        get=get,
        set=set_both,
        options={"SKIP_SAVE"},
        override={"LIBRARY_OVERRIDABLE"},
    )


def title(name: str) -> str:
    """browInnerUp as Brow Inner Up."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name[:1].upper() + name[1:])


class HeadStudioPairs(bpy.types.PropertyGroup):
    """The linked sliders of a mesh's shape keys; each only reads and writes the two keys."""

    __annotations__ = {pair: _pair_property(pair) for pair in expressions.PAIRS}


class HEADSTUDIO_OT_save_preset(bpy.types.Operator):
    """Keep the present expression as a preset of your own, for every file"""

    bl_idname = "headstudio.save_preset"
    bl_label = "Save Expression Preset"

    name: bpy.props.StringProperty(name="Name", maxlen=user_presets.LONGEST_NAME)
    replace: bpy.props.BoolProperty(name="Replace", description="Overwrite a preset of yours that has this name")

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return expressions.avatar_mesh(context) is not None

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context: bpy.types.Context) -> set[str]:
        keys = expressions.sliders(expressions.avatar_mesh(context))
        try:
            user_presets.save(self.name, {key.name: key.value for key in keys if key.value}, self.replace)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class HEADSTUDIO_OT_remove_preset(bpy.types.Operator):
    """Delete a preset of your own. This cannot be undone"""

    bl_idname = "headstudio.remove_preset"
    bl_label = "Remove Expression Preset"

    name: bpy.props.StringProperty(name="Name")

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, _context: bpy.types.Context) -> set[str]:
        try:
            user_presets.remove(self.name)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class HEADSTUDIO_MT_presets(bpy.types.Menu):
    bl_label = "Presets"

    def draw(self, context: bpy.types.Context) -> None:
        _preset_entries(self.layout, context, [name for name in PRESETS if not name.startswith(VISEME)])
        self.layout.menu("HEADSTUDIO_MT_visemes")
        own = user_presets.own_names()
        if own:
            self.layout.separator()
            _preset_entries(self.layout, context, own)


class HEADSTUDIO_MT_visemes(bpy.types.Menu):
    bl_label = "Visemes"

    def draw(self, context: bpy.types.Context) -> None:
        _preset_entries(self.layout, context, [name for name in PRESETS if name.startswith(VISEME)])


class HEADSTUDIO_MT_remove_preset(bpy.types.Menu):
    bl_label = "Remove Preset"

    def draw(self, _context: bpy.types.Context) -> None:
        own = user_presets.own_names()
        for name in own:
            self.layout.operator(HEADSTUDIO_OT_remove_preset.bl_idname, text=name).name = name
        if not own:
            self.layout.label(text="You have saved none")


def _preset_entries(layout: bpy.types.UILayout, context: bpy.types.Context, names: list[str]) -> None:
    for name in names:
        text = name.removeprefix(VISEME) if name.startswith(VISEME) else name[:1].upper() + name[1:]
        entry = layout.operator(expressions.HEADSTUDIO_OT_apply_preset.bl_idname, text=text)
        entry.preset, entry.strength = name, context.scene.headstudio_expressions.strength


class HEADSTUDIO_PT_expressions(AvatarPanel, bpy.types.Panel):
    bl_label = "Expressions"
    bl_order = 1

    def draw(self, context: bpy.types.Context) -> None:
        layout, shown = self.layout, context.scene.headstudio_expressions
        row = layout.row(align=True)
        row.menu("HEADSTUDIO_MT_presets", icon="PRESET")
        row.prop(shown, "strength", text="", slider=True)
        row.operator(HEADSTUDIO_OT_save_preset.bl_idname, text="", icon="ADD")
        row.menu("HEADSTUDIO_MT_remove_preset", text="", icon="REMOVE")
        row = layout.row(align=True)
        row.operator(expressions.HEADSTUDIO_OT_mirror_expression.bl_idname, icon="MOD_MIRROR")
        row.operator(expressions.HEADSTUDIO_OT_reset_expression.bl_idname, icon="LOOP_BACK")
        row = layout.row(align=True)
        row.prop(shown, "search", text="", icon="VIEWZOOM")
        row.prop(shown, "moved", text="", icon="FILTER")
        row.prop(shown, "linked", text="", icon="LINKED" if shown.linked else "UNLINKED")
        mesh = expressions.avatar_mesh(context)
        keyed = {path for path, _ in keying.curves(mesh.data.shape_keys)} if mesh.data.shape_keys else set()
        for group, rows in grouped(mesh, shown).items():
            if shown.search:
                layout.label(text=group)
                body = layout
            else:
                header, body = layout.panel(f"headstudio_{group}", default_closed=group not in OPEN_AT_FIRST)
                header.label(text=group)
            if body is not None:
                column = body.column(align=True)
                for name, keys in rows:
                    _slider(column, name, keys, keyed)


def grouped(
    mesh: bpy.types.Object, shown: HeadStudioExpressions
) -> dict[str, list[tuple[str, list[bpy.types.ShapeKey]]]]:
    """What the panel shows: by group, the name of each row and the keys that it moves, two for a linked pair."""
    keys = {key.name: key for key in expressions.sliders(mesh)}
    partner = {names[0]: pair for pair, names in expressions.PAIRS.items() if shown.linked and set(names) <= set(keys)}
    taken = {expressions.PAIRS[pair][1] for pair in partner.values()}
    found: dict[str, list] = {group: [] for group, _ in expressions.GROUPS}
    wanted = shown.search.replace(" ", "").lower()
    for name in keys:
        if name in taken:
            continue
        row = partner.get(name, name)
        moves = [keys[each] for each in expressions.PAIRS[row]] if name in partner else [keys[name]]
        matches = any(wanted in each.lower() for each in (row, *(key.name for key in moves)))
        if matches and (not shown.moved or any(key.value for key in moves)):
            found[expressions.group_of(name)].append((row, moves))
    return {group: rows for group, rows in found.items() if rows}


def _slider(column: bpy.types.UILayout, name: str, keys: list[bpy.types.ShapeKey], keyed: set[str]) -> None:
    if len(keys) == 1:
        column.prop(keys[0], "value", text=title(name), slider=True)
        return
    # Blender's own keyframe button would key the slider for both sides, which is no property of the animation
    row = column.row(align=True)
    differ = abs(keys[0].value - keys[1].value) > keying.TOLERANCE
    text = f"{title(name)} (sides differ)" if differ else title(name)
    row.prop(keys[0].id_data.headstudio_pairs, name, text=text, slider=True)
    animated = any(key.path_from_id("value") in keyed for key in keys)
    icon: Literal["DECORATE_ANIMATE", "DECORATE"] = "DECORATE_ANIMATE" if animated else "DECORATE"
    row.operator(timeline.HEADSTUDIO_OT_key_pair.bl_idname, text="", icon=icon).pair = name


CLASSES = (
    HeadStudioExpressions,
    HeadStudioPairs,
    HEADSTUDIO_OT_save_preset,
    HEADSTUDIO_OT_remove_preset,
    HEADSTUDIO_MT_presets,
    HEADSTUDIO_MT_visemes,
    HEADSTUDIO_MT_remove_preset,
    HEADSTUDIO_PT_expressions,
)


def register() -> None:
    bpy.types.Scene.headstudio_expressions = bpy.props.PointerProperty(type=HeadStudioExpressions)
    bpy.types.Key.headstudio_pairs = bpy.props.PointerProperty(type=HeadStudioPairs, override={"LIBRARY_OVERRIDABLE"})


def unregister() -> None:
    del bpy.types.Key.headstudio_pairs
    del bpy.types.Scene.headstudio_expressions
