"""What the commands share: how they end, and how expressions and joints are typed."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError
from ..job import Job

if TYPE_CHECKING:
    import numpy as np

    from ..heads.arrays import HeadArrays

EXIT_USER_ERROR, EXIT_INTERRUPTED = 2, 130

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="An expression control, 0 to 1, such as jawOpen=0.5. Repeatable."),
]
PresetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--preset", metavar="NAME[=VALUE]", help="A whole expression, such as smile or smile=0.5. Repeatable."
    ),
]
JointOption = Annotated[
    list[str] | None,
    typer.Option(
        "--joint",
        metavar="NAME=X,Y,Z",
        help="A joint's turn in degrees about x (nods down), y (turns to the subject's left) and z. Repeatable.",
    ),
]


def command(function: Callable) -> Callable:
    """Ends a command as the shell expects: one line on stderr and code 2 for what the user can put right, 130 after
    Ctrl-C."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except UserError as error:
            print(f"headstudio: {error}", file=sys.stderr)
            code = EXIT_USER_ERROR
        except KeyboardInterrupt:
            print("headstudio: interrupted", file=sys.stderr)
            code = EXIT_INTERRUPTED
        raise typer.Exit(code)

    return wrapper


def parse_numbers(option: str, text: str, count: int = 1) -> list[float]:
    """``count`` finite numbers between commas. Raises ``UserError`` that names the option."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(abs(number) < 1e6 for number in numbers):
        wanted = "a number" if count == 1 else f"{count} numbers with commas between"
        raise UserError(f"{option} {text!r}: expected {wanted}.")
    return numbers


def parse_pose(
    head: HeadArrays,
    controls: list[str] | None,
    presets: list[str] | None,
    joints: list[str] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The options ``--set``, ``--preset`` and ``--joint`` as (expression [E], joints [J, 3] in radians).

    Presets add up; what ``--set`` names replaces what they say. Raises ``UserError`` for a name that the head lacks.
    """
    import numpy as np

    from ..heads.expressions import PRESETS

    sliders: dict[str, float] = {}
    for item in presets or []:
        name, _, value = item.partition("=")
        strength = parse_numbers("--preset", value)[0] if value else 1.0
        for control, amount in PRESETS[find_name("preset", name, PRESETS)].items():
            sliders[control] = sliders.get(control, 0.0) + strength * amount
    for item in controls or []:
        name, value = _split("--set", item, "jawOpen=0.5")
        sliders[find_name("control", name, head.controls.names)] = parse_numbers(f"--set {name}", value)[0]
    missing = sorted(set(sliders) - set(head.controls.names))
    if missing:
        raise UserError(f"The head {head.name!r} lacks the controls {', '.join(missing)} of that preset.")
    expression, angles = head.drive(sliders)
    for item in joints or []:
        name, value = _split("--joint", item, "neck=0,20,0")
        row = head.joint_names.index(find_name("joint", name, head.joint_names))
        angles[row] += np.radians(parse_numbers(f"--joint {name}", value, 3)).astype(np.float32)
    return expression, angles


def find_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The name, if it is known; letter case does not matter. Raises ``UserError`` with the nearest ones otherwise."""
    known = list(known)
    exact = {candidate.lower(): candidate for candidate in known}
    if name.lower() in exact:
        return exact[name.lower()]
    near = difflib.get_close_matches(name.lower(), exact, 3, 0.6)
    hint = f"Did you mean {' or '.join(exact[n] for n in near)}?" if near else f"Known: {', '.join(known)}."
    raise UserError(f"There is no {kind} called {name!r}. {hint}")


def find_avatar(path: Path) -> Path:
    """The avatar's file: the path itself, or the result of the job whose folder it is. Raises ``UserError``."""
    if not path.is_dir():
        return path
    job = Job.open(path)
    if not job.avatar_path.exists():
        snapshot = job.preview_folder / "snapshot.avatar.npz"
        hint = f" Its latest snapshot is {snapshot}." if snapshot.exists() else ""
        raise UserError(f"The job in {path} is {job.state()} and has no avatar yet.{hint}")
    return job.avatar_path


def output_folder(path: Path) -> Path:
    """The folder, made where it is missing. Raises ``UserError`` if it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make the folder {path}: {error.strerror or error}.") from error
    return path


def check_parent(path: Path) -> None:
    """Raises ``UserError`` if the file's folder is missing: said before the work is done, not after."""
    if not path.absolute().parent.is_dir():
        raise UserError(f"There is no folder {path.absolute().parent} to write {path.name} to.")


def _split(option: str, item: str, example: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not name or not equals:
        raise UserError(f"{option} {item!r}: expected something like {example}.")
    return name, value
