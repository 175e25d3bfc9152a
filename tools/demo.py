"""From a prompt to an avatar, pictures, a PLY, figures and an animation in Blender: what ``make demo`` runs.

Everything goes to ``out/demo``, which is emptied first: each run starts afresh, so that its seconds are what they say.
The stages are ordinary commands of ``headstudio``, printed as they run, and then ``demo_blender.py`` in the ``bpy``
module. ``report.json`` holds their seconds and every figure that was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

PROMPT = "a smiling old man with a white beard and a red hat"
FOLDER = Path(__file__).resolve().parent.parent / "out" / "demo"


def main() -> int:
    options = parse()
    folder: Path = options.out
    clear(folder)
    job, pictures = folder / "avatar", folder / "pictures"
    ply, figures, report = folder / "smile.ply", folder / "figures.json", folder / "report.json"
    size = str(options.size)
    training = ["--preset", options.preset, "--prior", options.prior, "--seed", str(options.seed)]
    if options.steps:
        training += ["--steps", str(options.steps)]
    stages = {
        "generate": ["generate", options.prompt, *training, "--out", job],
        "render views and expressions": ["render", job, "--sheet", "--views", "front,three-quarter,left,back,right"],
        "render a talking head": ["render", job, "--motion", "4", "--fps", "25", "--size", size],
        "render a turntable": ["render", job, "--turntable", "3", "--fps", "25", "--size", size, "--preset", "smile"],
        "pose": ["pose", job, "--preset", "smile", "--out", ply],
        "evaluate": ["evaluate", job, "--out", figures],
    }
    seconds: dict[str, float] = {}
    for name, command in stages.items():
        arguments = [*map(str, command), *(["--out", str(pictures)] if command[0] == "render" else [])]
        print(f"\n$ headstudio {shlex.join(arguments)}", flush=True)
        start = time.perf_counter()
        code = subprocess.run([sys.executable, "-m", "headstudio.cli", *arguments], check=False).returncode
        seconds[name] = round(time.perf_counter() - start, 2)
        if code:
            print(f"demo: {name} ended with code {code}", file=sys.stderr)
            return code
    avatar = next(job.glob("*.avatar.npz"))
    start = time.perf_counter()
    blender = animate(avatar, folder / "blender", options.size)
    if blender is None:
        return 1
    seconds["animate and render in Blender"] = round(time.perf_counter() - start, 2)
    seconds["total"] = round(sum(seconds.values()), 2)
    measured = json.loads(figures.read_text())[0]
    about = {
        "prompt": options.prompt,
        "machine": machine(),
        "seconds": seconds,
        "figures": measured,
        "blender": blender,
        "megabytes": {path.name: round(path.stat().st_size / 1e6, 2) for path in (avatar, ply)},
    }
    report.write_text(json.dumps(about, indent=1) + "\n")
    figures.unlink()  # the report has them
    files = {"pictures": pictures, "Blender": folder / "blender", "avatar": avatar, "PLY of the smile": ply}
    summary(about, files | {"report": report})
    return 0


def animate(avatar: Path, folder: Path, size: int) -> dict | None:
    """Runs the Blender stage and returns what it tells of itself; None, with its last words printed, if it failed."""
    script = Path(__file__).with_name("demo_blender.py")
    command = [str(script), str(avatar), str(folder), "--size", str(size)]
    print(f"\n$ python {shlex.join(command)}", flush=True)
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--prior", default="starter")
    parser.add_argument("--steps", type=int, help="default: the preset's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=384, help="side of the videos in pixels")
    parser.add_argument("--out", type=Path, default=FOLDER)
    return parser.parse_args()


def clear(folder: Path) -> None:
    """Removes what an earlier demo made, and nothing else."""
    for name in ("avatar", "pictures", "blender"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("smile.ply", "figures.json", "report.json"):
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def machine() -> dict:
    return {
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def summary(about: dict, files: dict[str, Path]) -> None:
    print("\nSeconds")
    for name, value in about["seconds"].items():
        print(f"  {name:30}{value:8.1f}")
    figures, coverage = about["figures"], about["figures"]["coverage"]
    print("\nFigures")
    print(f"  {figures['splats']} splats, {figures['floaters']} of them adrift")
    print(f"  the head is opaque to {coverage['mean']:.1%}, in the worst view {coverage['least']:.1%}")
    for name, what in (("lids", "eyes closed"), ("lips", "mouth closed")):
        if figures[name] and figures[name]["share"] is not None:
            print(f"  {what}: {figures[name]['share']:.1%} of what they show when open")
    if figures["colours"]:
        agreeing = figures["colours"]
        told = ", ".join(f"{claim['part']} {claim['said']}" for claim in agreeing["claims"] if claim["agrees"])
        print(
            f"  {agreeing['agreeing']} of {agreeing['of']} colours agree with the prompt{': ' + told if told else ''}"
        )
    print("\nLook at")
    for name, path in files.items():
        print(f"  {name:20}{path}")
        if path.is_dir():
            for file in sorted(path.iterdir()):
                print(f"    {file.name}")


if __name__ == "__main__":
    sys.exit(main())
