"""Keyframes for an avatar's pose: all of it or what changed, automatic keying, one action for the whole avatar.

An action of Blender 4.4 and later has slots: the sliders (on the mesh's Key) and the bones (on the armature) take one
each of the same action, so that the performance is one thing to rename, to push down and to load elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import bpy

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Channel:
    """A property that can be keyed. ``holder`` is its data-block, ``path`` leads there from it."""

    holder: bpy.types.ID
    path: str
    group: str  # what the dope sheet puts it under
    rest: tuple[float, ...]

    def value(self) -> tuple[float, ...]:
        value = self.holder.path_resolve(self.path)
        return (value,) if isinstance(value, float) else tuple(value)


def values(channels: Iterable[Channel]) -> dict[Channel, tuple[float, ...]]:
    return {channel: channel.value() for channel in channels}


def insert(context: bpy.types.Context, channels: Iterable[Channel], options: Iterable[str] = ()) -> int:
    """Key the channels as they stand at the present frame; returns how many took a keyframe."""
    channels = list(channels)
    holders = list(dict.fromkeys(channel.holder for channel in channels))
    if {"INSERTKEY_AVAILABLE", "INSERTKEY_REPLACE"}.intersection(options):
        # Neither makes curves, and Blender warns of each that it would have to make
        there = {(holder, path) for holder in holders for path, _ in curves(holder)}
        channels = [channel for channel in channels if (channel.holder, channel.path) in there]
    else:
        _share_action(holders)
    settings = context.scene.tool_settings
    chosen = {*options, *({"INSERTKEY_CYCLE_AWARE"} if settings.use_keyframe_cycle_aware else ())}
    count = 0
    for channel in channels:
        count += channel.holder.keyframe_insert(
            channel.path,
            frame=context.scene.frame_current_final,
            group=channel.group,
            options=chosen,
            keytype=settings.keyframe_type,
        )
    return count


def auto_key(context: bpy.types.Context, channels: Iterable[Channel]) -> None:
    """Key the channels, which were just changed, if the artist has automatic keying on, and by its settings."""
    channels = list(channels)
    settings, preferences = context.scene.tool_settings, context.preferences.edit
    if not settings.use_keyframe_insert_auto or not channels:
        return
    active = context.scene.keying_sets_all.active
    if settings.use_keyframe_insert_keyingset and active is not None:
        try:
            active.refresh()  # sets such as Whole Character list their paths only now
        except RuntimeError:
            return  # the set has nothing to do with what is active
        wanted = {(path.id, path.data_path) for path in active.paths}
        channels = [channel for channel in channels if (channel.holder, channel.path) in wanted]
    options = set()
    if settings.auto_keying_mode == "REPLACE_KEYS":
        options.add("INSERTKEY_REPLACE")
    if preferences.use_auto_keyframe_insert_needed:
        options.add("INSERTKEY_NEEDED")
    if preferences.use_keyframe_insert_available:
        options.add("INSERTKEY_AVAILABLE")
    insert(context, channels, options)


def curves(holder: bpy.types.ID) -> dict[tuple[str, int], bpy.types.FCurve]:
    """The curves of the data-block's action, by data path and index."""
    data = holder.animation_data
    if data is None or data.action is None or data.action_slot is None:
        return {}
    bags = [strip.channelbag(data.action_slot) for layer in data.action.layers for strip in layer.strips]
    return {(curve.data_path, curve.array_index): curve for bag in bags if bag is not None for curve in bag.fcurves}


def changed(channels: Iterable[Channel], frame: float) -> list[Channel]:
    """The channels that are not where the action puts them at ``frame``; without a curve, not at rest."""
    channels = list(channels)
    found = {holder: curves(holder) for holder in {channel.holder for channel in channels}}
    result = []
    for channel in channels:
        for index, value in enumerate(channel.value()):
            curve = found[channel.holder].get((channel.path, index))
            expected = channel.rest[index] if curve is None else curve.evaluate(frame)
            if abs(value - expected) > TOLERANCE:
                result.append(channel)
                break
    return result


def _share_action(holders: list[bpy.types.ID]) -> None:
    """Let data-blocks without an action take a slot in the others' action, or in a new one."""
    for holder in holders:
        holder.animation_data_create()
    data = [holder.animation_data for holder in holders]
    actions = [each.action for each in data if each.action is not None and each.action.is_editable]
    for holder, each in zip(holders, data, strict=True):
        # In tweak mode the action is the strip's, and not ours to choose
        if each.action is None and not each.use_tweak_mode:
            if not actions:
                actions.append(bpy.data.actions.new(f"{_title(holder)} Action"))
            each.action = actions[0]
        if each.action is not None and each.action_slot is None and each.action.is_editable:
            each.action_slot = each.action.slots.new(holder.id_type, _title(holder))


def _title(holder: bpy.types.ID) -> str:
    """The mesh's or the armature's name: a Key's own is only "Key"."""
    return holder.user.name if isinstance(holder, bpy.types.Key) else holder.name
