"""``headstudio info``: what is in an avatar file or a job's folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..job import Job
from .common import command


@command
def run(
    path: Annotated[Path, typer.Argument(metavar="AVATAR|JOB", help="An avatar file, or a job's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Tell what an avatar or a job is.

    \b
    headstudio info old-man.avatar.npz
    headstudio info old-man --json
    """
    facts = job_facts(Job.open(path)) if path.is_dir() else avatar_facts(path)
    if as_json:
        json.dump(facts, sys.stdout, indent=1)
        print()
        return
    settings = facts.pop("settings", {})
    if path.is_dir() and settings:  # those that differ from the preset's; an avatar file has all of them, for --json
        facts["settings"] = ", ".join(f"{name}={value}" for name, value in settings.items())
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        print(f"{key:{width}}  {value}")


def job_facts(job: Job) -> dict:
    """The request, the state and the latest events of a job, as JSON values."""
    events = job.events()
    facts: dict = {"job": str(job.folder), "state": job.state()}
    progress = [event for event in events if event.kind == "progress"]
    if progress:
        last = progress[-1]
        facts["step"] = f"{last.step} of {last.data.get('total')}"
        facts["splats"] = last.data.get("splats")
        if facts["state"] == "running":
            facts["seconds left"] = last.data.get("remaining")
    if events and events[-1].kind == "error":
        facts["error"] = events[-1].data.get("message")
    if job.avatar_path.exists():
        facts["avatar"] = str(job.avatar_path)
    return facts | {key: value for key, value in job.request.to_json().items() if value not in (None, {}, False)}


def avatar_facts(path: Path) -> dict:
    """What an avatar file holds, as JSON values."""
    from ..avatar.file import load_avatar

    avatar = load_avatar(path)
    head, splats = avatar.head, avatar.splats
    about = {key: value for key, value in avatar.provenance.items() if key != "settings"}
    return {
        "avatar": str(path),
        "megabytes": round(path.stat().st_size / 1e6, 2),
        "splats": len(splats),
        "SH degree": {1: 0, 4: 1, 9: 2, 16: 3}[splats.sh.shape[1]],
        **about,
        "head": f"{head.name}, {len(head.vertices)} vertices, {len(head.triangles)} triangles",
        "head's licence": head.licence,
        "expression controls": len(head.controls.names),
        "joints": ", ".join(head.joint_names),
        "settings": avatar.provenance.get("settings", {}),
    }
