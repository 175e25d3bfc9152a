"""The picture of a job's latest snapshot, as an icon that the panel can draw."""

from __future__ import annotations

import bpy.utils.previews

from .job_reader import Entry

_loaded: dict[str, tuple[int, bpy.utils.previews.ImagePreviewCollection]] = {}  # by folder: snapshot and its picture


def picture(entry: Entry) -> int:
    """An icon's number; 0 if there is no picture yet."""
    folder = str(entry.folder)
    if not entry.snapshot:
        return 0
    if folder in _loaded and _loaded[folder][0] != entry.snapshot:
        bpy.utils.previews.remove(_loaded.pop(folder)[1])
    if folder not in _loaded:
        collection = bpy.utils.previews.new()
        collection.load("front", str(entry.folder / "preview" / "front.png"), "IMAGE")
        _loaded[folder] = entry.snapshot, collection
    return _loaded[folder][1]["front"].icon_id


def unregister() -> None:
    """Free all pictures."""
    for _, collection in _loaded.values():
        bpy.utils.previews.remove(collection)
    _loaded.clear()
