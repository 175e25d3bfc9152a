"""Checkpoints under damage: cut files, flipped bits, a full disk, a death in the middle of a write."""

import errno
import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from headstudio.errors import UserError
from headstudio.train import checkpoint as module
from headstudio.train.checkpoint import Checkpoint, clear_checkpoints, load_checkpoint, save_checkpoint


def example(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    tensors = {"offsets": torch.randn(7, 3, generator=generator), "triangle": torch.arange(7) * step}
    return Checkpoint(step, tensors, {"prompt": "an orc", "loss": 0.1 * step})


def same(one: Checkpoint, two: Checkpoint) -> bool:
    return (
        (one.step, one.state) == (two.step, two.state)
        and one.tensors.keys() == two.tensors.keys()
        and all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)
    )


def no_warning(message: str) -> None:
    raise AssertionError(message)


def test_round_trip_keeps_everything_and_the_latest_two(tmp_path):
    assert load_checkpoint(tmp_path, no_warning) is None
    for step in (5, 10, 15):
        save_checkpoint(tmp_path, example(step))
        assert same(load_checkpoint(tmp_path, no_warning), example(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]


def test_views_of_a_tensor_survive(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    save_checkpoint(tmp_path, Checkpoint(1, {"transposed": base.T, "whole": base}, {}))
    loaded = load_checkpoint(tmp_path, no_warning).tensors
    assert torch.equal(loaded["transposed"], base.T)
    assert torch.equal(loaded["whole"], base)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def change_a_number(path):
    """Still readable, but not what was written."""
    before, _, after = path.read_bytes().rpartition(b"0")
    path.write_bytes(before + b"7" + after)


@pytest.mark.parametrize(
    "damage", [cut, flip, change_a_number, lambda path: path.unlink(), lambda path: path.write_bytes(b"")]
)
@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, damage, name):
    save_checkpoint(tmp_path, example(5))
    save_checkpoint(tmp_path, example(10))
    path = tmp_path / "step-00000010" / name
    intact = path.read_bytes()
    damage(path)
    warnings = []
    loaded = load_checkpoint(tmp_path, warnings.append)
    assert same(loaded, example(5))
    assert len(warnings) == 1
    assert "step-00000010" in warnings[0]
    # the run goes on from step 5 and writes step 10 again, over the damaged one
    save_checkpoint(tmp_path, example(10))
    assert same(load_checkpoint(tmp_path, no_warning), example(10))
    assert path.read_bytes() == intact


def test_all_damaged_is_an_error_and_not_a_fresh_start(tmp_path):
    save_checkpoint(tmp_path, example(5))
    cut(tmp_path / "step-00000005" / "tensors.safetensors")
    with pytest.raises(UserError, match="Every checkpoint"):
        load_checkpoint(tmp_path, lambda message: None)


def test_another_format_is_named(tmp_path):
    save_checkpoint(tmp_path, example(5))
    path = tmp_path / "step-00000005" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(UserError, match="format 99"):
        load_checkpoint(tmp_path, no_warning)


@pytest.mark.parametrize("written_before_full", [0, 1])
def test_full_disk_keeps_the_last_good_one(tmp_path, monkeypatch, written_before_full):
    save_checkpoint(tmp_path, example(5))
    real, calls = module.write_durably, []

    def full(path, data):
        calls.append(path)
        if len(calls) > written_before_full:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    monkeypatch.setattr(module, "write_durably", full)
    with pytest.raises(UserError, match=r"No space left.*step-00000005"):
        save_checkpoint(tmp_path, example(10))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
    assert same(load_checkpoint(tmp_path, no_warning), example(5))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_really_full_device_is_an_oserror_from_our_writer():
    """The injection above stands for what the operating system does: here it does it."""
    with pytest.raises(OSError, match="No space left"):
        module.write_durably(module.Path("/dev/full"), b"x" * 10)


def test_a_file_in_the_folders_place_is_one_clear_line(tmp_path):
    (tmp_path / "checkpoint").write_text("not a folder")
    with pytest.raises(UserError, match="cannot be written"):
        save_checkpoint(tmp_path / "checkpoint", example(5))


def test_death_in_the_middle_of_a_write_leaves_the_previous_one(tmp_path):
    save_checkpoint(tmp_path, example(5))
    script = f"""
        import os, signal, pathlib, torch
        from headstudio.train import checkpoint
        real = checkpoint.write_durably
        def die(path, data):
            if path.name == "state.json":
                os.kill(os.getpid(), signal.SIGKILL)
            real(path, data)
        checkpoint.write_durably = die
        example = checkpoint.Checkpoint(10, {{"a": torch.ones(9)}}, {{}})
        checkpoint.save_checkpoint(pathlib.Path({str(tmp_path)!r}), example)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert result.returncode == -9
    assert (tmp_path / ".partial-step-00000010").exists()
    assert same(load_checkpoint(tmp_path, no_warning), example(5))
    save_checkpoint(tmp_path, example(10))
    assert not (tmp_path / ".partial-step-00000010").exists()


def test_clearing_removes_checkpoints_and_nothing_else(tmp_path):
    save_checkpoint(tmp_path, example(5))
    (tmp_path / "notes.txt").write_text("mine")
    clear_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    clear_checkpoints(tmp_path / "missing")
