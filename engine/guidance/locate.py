"""From what a user names (a folder, a Hugging Face id, a known prior) to a folder on this machine."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError
from ..starter import model_folder
from .known import KNOWN_PRIORS, HubFolder

STARTER = "starter"
"""The name of the prior that is part of the package."""

# Weights in safetensors only, and only those of the parts that are used: repositories often hold the same model in
# several other forms.
MODEL_FILES = ("*.json", "*.txt", *(f"{part}/*.safetensors" for part in ("unet", "vae", "text_encoder", "controlnet")))

_HUB_ID = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(?P<subfolder>(/[\w][\w.-]*)*)(@(?P<revision>[\w.-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GO_ON = f"Or go on without it, with the built-in prior: --prior {STARTER}"


@dataclass(frozen=True)
class Located:
    """A diffusers folder on this machine."""

    folder: Path
    name: str  # what to call it in provenance
    revision: str | None  # commit hash if it came from the hub


def locate_prior(
    source: str | Path, revision: str | None, controlnet: str | Path | None, download: bool
) -> tuple[Located, Located | None]:
    """Folders of the model and of the ControlNet (None: look for ``controlnet/`` inside the model's folder).

    Nothing is fetched unless ``download``. Raises ``UserError`` that says what to do for a name that means nothing,
    a hub id without a commit, or files that are not here (with the command that fetches them).
    """
    known = KNOWN_PRIORS.get(str(source))
    if known:
        model = replace(known.model, revision=revision or known.model.revision)
        control = known.controlnet if controlnet is None else _resolve(controlnet, None, "ControlNet")
    else:
        model = _resolve(source, revision, "prior")
        control = None if controlnet is None else _resolve(controlnet, None, "ControlNet")
    located = [_find(part, download) for part in (model, control)]
    missing = [part for part, found in zip((model, control), located, strict=True) if part and not found]
    if missing:
        raise UserError(_missing_message(str(source), missing))
    return located[0], located[1]


def _resolve(source: str | Path, revision: str | None, what: str) -> HubFolder | Located:
    text = str(source)
    folder = model_folder() if text == STARTER else Path(source).expanduser()
    if folder.is_dir():
        return Located(folder, text if text == STARTER else folder.resolve().name, None)
    if folder.is_file():
        raise UserError(
            f"{folder} is a single file, but a {what} is a diffusers folder of several (unet/config.json and so on). "
            "Convert it with diffusers' save_pretrained and give that folder."
        )
    if text == STARTER:
        raise UserError(f"The built-in prior is missing from this installation ({folder}): install HeadStudio again.")
    match = _HUB_ID.fullmatch(text)
    if not match or isinstance(source, Path):
        known = ", ".join([STARTER, *KNOWN_PRIORS])
        raise UserError(f"There is no {what} {text!r}: give a known name ({known}), a diffusers folder or a hub id.")
    commit = match["revision"] or revision
    if not commit or not _COMMIT.fullmatch(commit):
        raise UserError(
            f"{match['repo']} needs a revision, the full commit hash of 40 digits on its Hugging Face page under "
            f"'Files and versions', so that the same weights are loaded every time: write {text.split('@')[0]}@HASH. "
            f"(If {text} was meant as a folder: there is no such folder.)"
        )
    return HubFolder(match["repo"], commit, match["subfolder"].strip("/"))


def _find(part: HubFolder | Located | None, download: bool) -> Located | None:
    """The folder of a part; None if the part is None or not in the hub's cache."""
    if part is None or isinstance(part, Located):
        return part
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        root = snapshot_download(
            part.repo, revision=part.revision, allow_patterns=list(_patterns(part)), local_files_only=not download
        )
    except LocalEntryNotFoundError as error:
        if download:
            raise UserError(f"{part.repo} cannot be downloaded: the hub was not reached. {_GO_ON}") from error
        return None
    except Exception as error:  # the hub's client lets the errors of whatever HTTP library it uses through
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{part.repo} at {part.revision} cannot be downloaded: {reason} {_GO_ON}") from error
    folder = Path(root) / part.subfolder
    if not folder.is_dir():
        if download:
            raise UserError(f"{part.repo} at {part.revision} has no folder {part.subfolder}: check the id. {_GO_ON}")
        return None
    return Located(folder, "/".join(filter(None, (part.repo, part.subfolder))), part.revision)


def _patterns(part: HubFolder) -> tuple[str, ...]:
    if part.subfolder:
        return f"{part.subfolder}/*.json", f"{part.subfolder}/*.safetensors"
    return MODEL_FILES


def download_command(part: HubFolder) -> str:
    """The shell command that puts the part into the hub's cache, where it is looked for."""
    includes = " ".join(f"--include {shlex.quote(pattern)}" for pattern in _patterns(part))
    return f"hf download {part.repo} --revision {part.revision} {includes}"


def _missing_message(name: str, missing: list[HubFolder]) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    facts = [", ".join(filter(None, (f"about {p.gigabytes:g} GB" if p.gigabytes else "", p.licence))) for p in missing]
    lines = [f"The weights of the prior {name} are not on this machine. Download them once with"]
    for part, fact in zip(missing, facts, strict=True):
        lines.append(f"  {download_command(part)}" + (f"   # {fact}" if fact else ""))
    lines.append(f"(they go to {HF_HUB_CACHE}, where they are looked for), or repeat the command with --download.")
    lines.append(_GO_ON)
    return "\n".join(lines)


def revision_of(model: Located, control: Located | None) -> str:
    """Commit hashes for parts from the hub, else a hash of the weights: what provenance needs to tell two apart."""
    parts = []
    for part in filter(None, (model, control)):
        if part.revision:
            parts.append(part.revision)
            continue
        digest = hashlib.sha256()
        for file in sorted(part.folder.rglob("*.safetensors")):
            digest.update(file.relative_to(part.folder).as_posix().encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        parts.append(f"sha256:{digest.hexdigest()[:16]}")
    return " + ".join(parts)
