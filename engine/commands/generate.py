"""``headstudio generate``: a prompt becomes an avatar, in a job folder of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError
from ..job import DONE, RUNNING, START, Job, JobRequest, name_from
from ..train.progress import SilentReporter
from .common import command

if TYPE_CHECKING:
    from ..train.progress import Progress


@command
def run(
    prompt: Annotated[str | None, typer.Argument(help="Whom the avatar shows. May be left out with --resume.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to work in; the avatar is FOLDER/NAME.avatar.npz. Default: named after the prompt."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the avatar. Default: the prompt's first words.")] = None,
    negative: Annotated[str | None, typer.Option(help="What to keep away from. Default: the paper's list.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same avatar (default 0).")] = None,
    preset: Annotated[str | None, typer.Option(help="draft (default), standard or paper.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps. Default: the preset's.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Any other training setting; see: headstudio settings. Repeatable."),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="Diffusion model: starter (default, built in), realistic-vision, a diffusers folder, or "
            "OWNER/NAME@COMMIT on the hub."
        ),
    ] = None,
    controlnet: Annotated[
        str | None, typer.Option(help="ControlNet for landmark maps, where the prior's folder holds none.")
    ] = None,
    download: Annotated[bool | None, typer.Option("--download", help="Fetch the prior's weights if missing.")] = None,
    head: Annotated[str | None, typer.Option(help="default (built in), or a FLAME file of yours.")] = None,
    start_from: Annotated[
        str | None,
        typer.Option("--from", metavar="AVATAR", help="Start from this avatar file, made on the same head."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda, cuda:1 ...")] = None,
    low_memory: Annotated[
        bool | None, typer.Option("--low-memory", help="For GPUs with 8 to 12 GB: slower, same result.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the job in --out; start it if there is none and a prompt.")
    ] = False,
) -> None:
    """Make an avatar from a text prompt.

    \b
    headstudio generate "a smiling old man with a white beard and a red hat"
    headstudio generate "an elf with green skin" --seed 3 --preset standard --out elf
    headstudio generate --resume --out elf
    headstudio generate "an old elf" --from elf/elf.avatar.npz --out old-elf

    Without a GPU the preset draft takes minutes. Ctrl-C finishes the step, keeps a checkpoint and exits with code 130;
    the same command with --resume goes on from there, as it does after a crash, and ends with the same avatar.
    """
    asked = {
        "prompt": prompt,
        "name": name,
        "negative": negative,
        "seed": seed,
        "preset": preset,
        "steps": steps,
        "settings": parse_settings(setting) if setting else None,
        "prior": _located(prior),
        "controlnet": _located(controlnet),
        "download": download,
        "head": _located(head),
        "start_from": _located(start_from),
        "device": device,
        "low_memory": low_memory,
    }
    asked = {key: value for key, value in asked.items() if value is not None}
    job, fresh = _job(asked, out, resume)
    if job.finished:
        print(f"{job.avatar_path} is finished already.")
        return
    try:
        code = _serve(job)
    finally:
        # A wrong prior or a damaged head file shows only when it is opened: that leaves nothing behind
        if fresh and job.last_state() != DONE and not job.checkpoint_folder.exists() and job.last_step() == 0:
            _remove(job)
    if code == 130 and job.exists():
        command = f"headstudio generate --resume --out {quote(str(job.folder))}"
        print(f"Stopped after step {job.last_step()}. Go on with: {command}")
    if code:
        raise typer.Exit(code)
    print(job.avatar_path)


def parse_settings(items: list[str]) -> dict[str, object]:
    """``NAME=VALUE`` as numbers, lists (``20,550``) or words."""
    settings: dict[str, object] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals:
            raise UserError(f"--setting {item!r}: expected something like views=2. See: headstudio settings")
        for attempt in (text, f"[{text}]"):
            with contextlib.suppress(ValueError):
                settings[name] = json.loads(attempt)
                break
        else:
            settings[name] = text
    return settings


def _located(source: str | None) -> str | None:
    """A path as an absolute one: the job may be resumed from elsewhere."""
    return str(Path(source).absolute()) if source and Path(source).exists() else source


def _job(asked: dict, out: Path | None, resume: bool) -> tuple[Job, bool]:
    """The job to serve, and whether it was made here."""
    if "prompt" not in asked and not (resume and out):
        raise UserError('Say whom to make: headstudio generate "a smiling old man". To go on: --resume --out FOLDER.')
    folder = out or Path(asked.get("name") or name_from(asked["prompt"]))
    if (folder / "job.json").exists():
        job = Job.open(folder)
        if not resume:
            raise UserError(f"There is a job in {folder} already. Add --resume to go on, or choose another --out.")
        _compare(job, asked)
        if job.state() == RUNNING:
            raise UserError(f"The job in {folder} is being worked on (process {(job.worker() or {}).get('pid')}).")
        job.withdraw_cancel()
        return job, False
    if "prompt" not in asked:
        raise UserError(f"There is no job in {folder} to go on with.")
    return Job.create(folder, JobRequest(**asked)), True


def _compare(job: Job, asked: dict) -> None:
    """A resumed job keeps its request: what is said again must be the same."""
    before = job.request.to_json()
    wanted = JobRequest(**{**before, **asked}).to_json()
    for key in asked:
        if wanted[key] != before[key]:
            raise UserError(
                f"The job in {job.folder} was started with {key} {before[key]!r}, not {wanted[key]!r}. "
                "Leave that out to go on with it, or choose another --out."
            )


def _serve(job: Job) -> int:
    from ..train.progress import TerminalReporter
    from ..worker import serve

    if not sys.stderr.isatty():
        return serve(job, _PlainReporter())
    with TerminalReporter() as terminal:
        return serve(job, terminal)


class _PlainReporter(SilentReporter):
    """Progress as lines, for logs and pipes: one at a tenth of the run, or every half minute."""

    def __init__(self) -> None:
        self._next = 0.0
        self._last = time.monotonic()

    def progress(self, progress: Progress) -> None:
        share, now = progress.step / progress.total, time.monotonic()
        if share < self._next and now - self._last < 30 and share < 1:
            return
        self._next, self._last = share + 0.1, now
        loss = ", ".join(f"{name} {value:.3g}" for name, value in progress.losses.items())
        print(
            f"step {progress.step} of {progress.total}: {loss}, {progress.splats} splats, "
            f"{progress.seconds:.0f} s, {progress.remaining:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    def warning(self, message: str) -> None:
        print(f"headstudio: {message}", file=sys.stderr, flush=True)


def _remove(job: Job) -> None:
    """Takes back a folder that was made a moment ago."""
    for name in ("job.json", "events.jsonl", "lock", "log.txt", "cancel", START):
        (job.folder / name).unlink(missing_ok=True)
    shutil.rmtree(job.preview_folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # the user's own files lie in it: it stays
        job.folder.rmdir()
