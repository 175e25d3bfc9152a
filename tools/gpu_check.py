"""Proves the CUDA path on a machine with an NVIDIA card, from a checkout and the folder that ``gpu_wheels`` filled.

    python3 tools/gpu_check.py [--part build|parity|training|playback|all|dry] [--wheels out/gpu-wheels] [--out out/gpu]

Offline, without system packages, and written with the standard library alone. What the machine lacks is installed into
a folder of its own that goes before the machine's packages: a virtual environment made from inside another, as such
machines often have, would not see that one's packages. Each part ends within ten minutes; results are JSON files.

build: compiles gsplat's kernels (kept for the other parts); parity: CUDA against the definitions; training, playback:
the benchmarks; dry: the same scripts at toy size on the CPU. Without a GPU all but dry say so and end with status 2.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "out" / "gpu-check"
PART_SECONDS = 570  # ten minutes, less what starting and reporting take
NO_GPU = 2

GPU_TESTS = (
    "tests/gpu",
    "tests/rasterise/test_cuda.py",
    "tests/avatar/test_binding.py",
    "tests/condition/test_picture.py",
    "tests/guidance/test_prior.py",
)
NEEDED = (
    *("torch", "transformers", "accelerate", "safetensors", "tokenizers", "numpy", "scipy", "numba", "cv2", "ninja"),
    *("pytest", "hypothesis", "jaxtyping", "rich", "diffusers", "gsplat", "platformdirs", "plyfile"),
)
WANTED = ("smplx",)  # an oracle: noted, but no part stands or falls with it
PROBE = """
import importlib, json, sys
about, missing = {"python": sys.version.split()[0], "versions": {}}, {}
for name in sys.argv[1:]:
    try:
        about["versions"][name] = str(getattr(importlib.import_module(name), "__version__", "there"))
    except Exception as error:
        missing[name] = f"{type(error).__name__}: {error}"
about["missing"] = missing
if "torch" not in missing:
    import torch
    about["cuda"] = torch.version.cuda
    if torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name()
        about["capability"] = "%d.%d" % torch.cuda.get_device_capability()
        about["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
print(json.dumps(about))
"""
BUILD = """
import time
began = time.time()
from headstudio.rasterise.cuda import why_unavailable
reason = why_unavailable()
raise SystemExit(reason) if reason else print(f"gsplat's kernels are ready after {time.time() - began:.0f} s.")
"""


class Failure(Exception):  # noqa: N818 (a part that failed, not a fault of this script)
    """What is wrong, in a sentence for whoever runs the check."""


def install(wheels: Path) -> Path:
    """A folder of packages for PYTHONPATH: the wheels, and the checkout's engine under its import name."""
    files = sorted(wheels.glob("*.whl"))
    if not files:
        raise Failure(
            f"There are no wheels in {wheels}: run `make gpu-wheels` where there is a registry, carry it here."
        )
    names = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
    site = WORK / f"site-{hashlib.sha256(names.encode()).hexdigest()[:12]}"
    if not (site / "headstudio").exists():
        shutil.rmtree(site, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
        command += ["--find-links", str(wheels), "--no-deps", "--no-cache-dir", "--target", str(site)]
        if subprocess.run([*command, *map(str, files)]).returncode:
            raise Failure(f"pip could not install the wheels of {wheels}: see above.")
        (site / "headstudio").symlink_to(ROOT / "engine", target_is_directory=True)
    cache = WORK / "cache" / "headstudio"
    cache.mkdir(parents=True, exist_ok=True)
    for head in wheels.glob("default-head-*.npz"):
        if not (cache / head.name).exists():
            shutil.copyfile(head, cache / head.name)
    return site


def environment(site: Path | None) -> dict[str, str]:
    """Of every process that is started: offline, its packages, and everything it writes below ``WORK``."""
    variables = dict(os.environ)
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    if site is not None:
        paths.insert(0, str(site))
        variables["XDG_CACHE_HOME"] = str(WORK / "cache")
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    # Where ninja lies, if Python was called by its path
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    variables["TORCH_EXTENSIONS_DIR"] = str(WORK / "kernels")
    variables.setdefault("MAX_JOBS", str(os.cpu_count() or 4))
    return variables


def run(command: list[str], variables: dict[str, str], deadline: float) -> None:
    """A process in the checkout. Raises ``Failure`` if it fails or is not done by ``deadline``."""
    print("$", " ".join(command if "-c" not in command else command[: command.index("-c") + 1]), flush=True)
    try:
        done = subprocess.run(command, cwd=ROOT, env=variables, timeout=max(deadline - time.monotonic(), 1))
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{command[2]} was not done within the part's time and was ended.") from error
    if done.returncode:
        raise Failure(f"{command[2]} failed with status {done.returncode}: see above.")


def probe(variables: dict[str, str]) -> dict:
    command = [sys.executable, "-c", PROBE, *NEEDED, *WANTED]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise Failure(f"The packages could not be looked at:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def build(variables: dict[str, str], out: Path, deadline: float) -> None:
    run([sys.executable, "-c", BUILD], variables, deadline)


def parity(variables: dict[str, str], out: Path, deadline: float) -> None:
    build(variables, out, deadline)
    report = out / "parity.xml"
    command = [sys.executable, "-m", "pytest", "-m", "cuda", *GPU_TESTS, "-p", "no:cacheprovider"]
    run([*command, f"--junitxml={report}"], variables | {"GPU_PARITY": str(out / "parity.json")}, deadline)
    skipped = [
        case.get("name") for case in ElementTree.parse(report).iter("testcase") if case.find("skipped") is not None
    ]
    if skipped:
        raise Failure(f"On a machine with a GPU these tests skipped, which proves nothing: {', '.join(skipped)}.")


def training(variables: dict[str, str], out: Path, deadline: float) -> None:
    build(variables, out, deadline)
    base = [sys.executable, "-m", "benchmarks.training", "--prior", "sd15", "--preset", "paper", "--splats", "100000"]
    for name, options in {
        "fp16": ["--dtype", "float16"],
        "bf16": ["--dtype", "bfloat16"],
        "small": ["--dtype", "float16", "--views-at-once", "1", "--steps", "5"],
        "compiled": ["--dtype", "float16", "--compile-backend", "inductor"],
    }.items():
        run([*base, *options, "--out", str(out / f"training-{name}.json")], variables, deadline)


def playback(variables: dict[str, str], out: Path, deadline: float) -> None:
    build(variables, out, deadline)
    run([sys.executable, "-m", "benchmarks.playback", "--out", str(out / "playback.json")], variables, deadline)


def dry(variables: dict[str, str], out: Path, deadline: float) -> None:
    variables = variables | {"CUDA_VISIBLE_DEVICES": ""}
    run(
        [sys.executable, "-m", "benchmarks.training", "--toy", "--out", str(out / "dry-training.json")],
        variables,
        deadline,
    )
    run(
        [sys.executable, "-m", "benchmarks.playback", "--toy", "--out", str(out / "dry-playback.json")],
        variables,
        deadline,
    )


PARTS = {"build": build, "parity": parity, "training": training, "playback": playback, "dry": dry}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", default="parity", choices=[*PARTS, "all"])
    parser.add_argument("--wheels", type=Path, default=ROOT / "out" / "gpu-wheels")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("GPU_OUT") or ROOT / "out" / "gpu"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.out = arguments.out.resolve()
    try:
        # A dry run also serves where the engine is installed already
        carried = arguments.part != "dry" or any(arguments.wheels.glob("*.whl"))
        variables = environment(install(arguments.wheels.resolve()) if carried else None)
        about = probe(variables)
        print(json.dumps(about, indent=2), flush=True)
        (arguments.out / "machine.json").write_text(json.dumps(about, indent=2) + "\n")
        if arguments.part != "dry" and "gpu" not in about:
            print(
                "There is no CUDA device here: nothing of the GPU path was tested. PART=dry runs it small on the CPU."
            )
            return NO_GPU
        if about["missing"]:
            raise Failure(
                "These packages are missing or broken: " + "; ".join(map(": ".join, about["missing"].items()))
            )
        if "capability" in about:
            variables["TORCH_CUDA_ARCH_LIST"] = about["capability"]  # the kernels of one card, not of all
        names = ("build", "parity", "training", "playback") if arguments.part == "all" else (arguments.part,)
        for name in names:
            began = time.monotonic()
            print(f"== {name}", flush=True)
            PARTS[name](variables, arguments.out, began + PART_SECONDS)
            print(f"== {name}: done in {time.monotonic() - began:.0f} s, results in {arguments.out}", flush=True)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
