"""Collects what a bare CUDA machine lacks for ``make gpu-check``: wheels, and the default head ready built.

    python tools/gpu_wheels.py [--python-version 3.12] [--out out/gpu-wheels]

Run it where there is a package registry, and carry the folder. The other machine is expected to have torch with CUDA,
nvcc, ninja, transformers, safetensors, accelerate, numba, scipy, opencv and pytest; ``gpu_check`` names what it misses.
gsplat's wheel holds the sources of its kernels: they are compiled there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("diffusers", "gsplat", "importlib_metadata", "platformdirs", "plyfile", "smplx")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LIMIT_MIB = 55
NEVER = ("torch-", "nvidia_", "triton-")  # gigabytes, and of the card's own version


def download(folder: Path, python_version: str) -> None:
    """The packages, at the versions that the tests here ran with, without what they in turn ask for."""
    wanted = [f"{name}=={version(name)}" for name in PACKAGES]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python_version}"]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    if subprocess.run([*command, "--dest", str(folder), *wanted]).returncode:
        sys.exit(f"pip could not fetch all of {', '.join(wanted)} for Python {python_version}: see above.")


def build_head(folder: Path) -> None:
    """The default head as its cache file: the data that it is built from is twice as large."""
    from headstudio.heads.default_head import default_head

    default_head(cache_dir=folder)
    if not list(folder.glob("default-head-*.npz")):
        sys.exit(f"The default head could not be written to {folder}.")


def check(folder: Path) -> int:
    """Prints what is there and returns its bytes. Exits where it is too much, incomplete, or holds torch."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for path in files:
        print(f"{path.stat().st_size / 2**20:7.1f} MiB  {path.name}")
    forbidden = [path.name for path in files if path.name.startswith(NEVER)]
    if forbidden:
        sys.exit(f"{', '.join(forbidden)} must not be carried: the machine has its own.")
    missing = [name for name in PACKAGES if not list(folder.glob(f"{name}-*.whl"))]
    if missing:
        sys.exit(f"There is no wheel of {', '.join(missing)} in {folder}.")
    total = sum(path.stat().st_size for path in files)
    print(f"{total / 2**20:7.1f} MiB  in {folder}, of {LIMIT_MIB} at most")
    if total > LIMIT_MIB * 2**20:
        sys.exit(f"That is more than {LIMIT_MIB} MiB.")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python-version", default="3.12", help="of the CUDA machine")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "gpu-wheels")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for pattern in ("*.whl", "default-head-*.npz"):  # of an earlier call, perhaps at other versions
        for old in arguments.out.glob(pattern):
            old.unlink()
    download(arguments.out, arguments.python_version)
    build_head(arguments.out)
    check(arguments.out)


if __name__ == "__main__":
    main()
