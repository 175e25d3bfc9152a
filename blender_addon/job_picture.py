"""The picture of a job's latest snapshot, as an icon that the panel can draw."""

from __future__ import annotations

import bpy.utils.previews

from .job_reader import Entry

# One collection, made when the first picture is drawn. Pictures of earlier snapshots (256 kB each) stay
# in it until the extension is disabled: what is drawn at the moment must not be freed, and `reload` shows the old one.
_collections: list[bpy.utils.previews.ImagePreviewCollection] = []


def picture(entry: Entry) -> int:
    """An icon's number; 0 if there is no picture yet."""
    if not entry.snapshot:
        return 0
    if not _collections:
        _collections.append(bpy.utils.previews.new())
    pictures, key = _collections[0], f"{entry.folder} {entry.snapshot}"
    if key not in pictures:
        pictures.load(key, str(entry.folder / "preview" / "front.png"), "IMAGE")
    return pictures[key].icon_id


def unregister() -> None:
    """Free all pictures."""
    while _collections:
        bpy.utils.previews.remove(_collections.pop())
