"""``python -m benchmarks [NAME ...]`` runs the benchmarks of this folder, or those named, one after the other.

Each runs in a process of its own, so that none inherits another's thread pools or caches.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

BENCHMARKS = ("rasteriser", "photometric_fit", "training", "blender_enable", "blender_import", "job_polling")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or BENCHMARKS
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark called {unknown[0]}; there are {', '.join(BENCHMARKS)}")
    for name in names:
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"])
        if done.returncode:
            sys.exit(f"The benchmark {name} failed.")


if __name__ == "__main__":
    main()
