"""Files that appear whole or not at all."""

import os

import pytest
from headstudio.avatar.atomic import atomic_write
from headstudio.errors import UserError


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_as_a_whole_or_stays(tmp_path, durable):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with atomic_write(path, durable) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def _broken_off(path, durable):
    with atomic_write(path, durable) as file:
        file.write(b"half")
        raise RuntimeError


@pytest.mark.parametrize("durable", [True, False])
def test_nothing_is_left_of_a_file_that_was_broken_off(tmp_path, durable):
    path = tmp_path / "a.txt"
    path.write_bytes(b"new")
    with pytest.raises(RuntimeError):
        _broken_off(path, durable)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("durable", [True, False])
def test_the_disk_is_waited_for_where_it_must_be(tmp_path, monkeypatch, durable):
    waits = []
    monkeypatch.setattr(os, "fsync", waits.append)
    with atomic_write(tmp_path / "a.txt", durable) as file:
        file.write(b"new")
    assert len(waits) == durable


def test_a_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(UserError, match=r"missing.*Choose another folder"),
        atomic_write(tmp_path / "missing" / "a.txt"),
    ):
        pass
