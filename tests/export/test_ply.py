"""The PLY against gsplat's exporter, byte for byte, against plyfile, and as a reader of damaged files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gsplat.exporter import export_splats
from headstudio.avatar.posing import PosedSplats
from headstudio.errors import UserError
from headstudio.export.ply import read_ply, write_ply
from hypothesis import given, settings
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement


def random_splats(count: int = 200, coefficients: int = 16, seed: int = 0) -> PosedSplats:
    rng = np.random.default_rng(seed)
    quats = rng.normal(size=(count, 4))
    return PosedSplats(
        means=rng.normal(0, 0.1, (count, 3)).astype(np.float32),
        quats=(quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        scales=np.exp(rng.normal(-6, 1, (count, 3))).astype(np.float32),
        opacities=rng.uniform(0.01, 0.99, count).astype(np.float32),
        sh=rng.normal(0, 0.5, (count, coefficients, 3)).astype(np.float32),
    )


def table(path) -> np.ndarray:
    return PlyData.read(path)["vertex"].data


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_same_file_as_gsplats_exporter(tmp_path, coefficients):
    splats = random_splats(coefficients=coefficients)
    write_ply(tmp_path / "ours.ply", splats)
    sh = torch.from_numpy(splats.sh)
    export_splats(
        means=torch.from_numpy(splats.means),
        scales=torch.from_numpy(splats.scales).log(),
        quats=torch.from_numpy(splats.quats),
        opacities=torch.from_numpy(splats.opacities).logit(),
        sh0=sh[:, :1],
        shN=sh[:, 1:],
        format="ply",
        save_to=str(tmp_path / "theirs.ply"),
    )
    ours, theirs = table(tmp_path / "ours.ply"), table(tmp_path / "theirs.ply")
    shared = [name for name in theirs.dtype.names if name in ours.dtype.names]
    assert set(ours.dtype.names) - set(shared) <= {"nx", "ny", "nz"}  # gsplat writes no normals
    assert shared == list(theirs.dtype.names)
    assert shared == [name for name in ours.dtype.names if name in shared]  # in the same order
    for name in shared:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_layout_by_hand(tmp_path):
    """One splat whose every number is known: f_rest holds all of red first."""
    sh = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    one = PosedSplats(
        means=np.array([[1, 2, 3]], np.float32),
        quats=np.array([[0, 0, 2, 0]], np.float32),
        scales=np.array([[1, np.e, np.e**2]], np.float32),
        opacities=np.array([0.5], np.float32),
        sh=sh,
    )
    write_ply(tmp_path / "one.ply", one)
    names = ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(9))]
    names += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    vertex = table(tmp_path / "one.ply")
    assert list(vertex.dtype.names) == names
    expected = [1, 2, 3, 0, 0, 0, 0, 1, 2, 3, 6, 9, 4, 7, 10, 5, 8, 11, 0, 0, 1, 2, 0, 0, 1, 0]
    np.testing.assert_allclose(np.array(vertex[0].tolist()), expected, atol=1e-6)
    header = (tmp_path / "one.ply").read_bytes()[:40]
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\n")


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 40), coefficients=st.sampled_from([1, 4, 9, 16]), seed=st.integers(0, 1000))
def test_round_trip(tmp_path_factory, count, coefficients, seed):
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    splats = random_splats(count, coefficients, seed)
    write_ply(path, splats)
    back = read_ply(path)
    assert len(back) == count
    for name in ("means", "quats", "scales", "opacities", "sh"):
        np.testing.assert_allclose(getattr(back, name), getattr(splats, name), rtol=2e-5, atol=1e-6, err_msg=name)


def test_extreme_splats_are_written_as_finite_numbers(tmp_path):
    splats = random_splats(3)
    splats.opacities[:] = [0, 1, 0.5]
    splats.scales[0] = 0
    write_ply(tmp_path / "a.ply", splats)
    assert all(np.isfinite(table(tmp_path / "a.ply")[name]).all() for name in ("opacity", "scale_0"))
    np.testing.assert_allclose(read_ply(tmp_path / "a.ply").opacities, [0, 1, 0.5], atol=2e-6)


def test_reads_text_and_other_programs_order(tmp_path):
    """Properties in another order, doubles, no normals, a further property, text instead of binary."""
    splats = random_splats(5, 1)
    write_ply(tmp_path / "a.ply", splats)
    vertex = table(tmp_path / "a.ply")
    names = [name for name in reversed(vertex.dtype.names) if not name.startswith("n")]
    other = np.zeros(5, [("time", "u1"), *((name, "f8") for name in names)])
    for name in names:
        other[name] = vertex[name]
    PlyData([PlyElement.describe(other, "vertex")], text=True).write(str(tmp_path / "b.ply"))
    back = read_ply(tmp_path / "b.ply")
    np.testing.assert_allclose(back.means, splats.means, rtol=1e-5)
    np.testing.assert_allclose(back.sh, splats.sh, rtol=1e-5)


def test_files_that_are_no_splats_are_refused_by_name(tmp_path):
    path = tmp_path / "bad.ply"

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message) as error:
            read_ply(path)
        assert "bad.ply" in str(error.value)

    refused("no PLY file")
    for content in (b"", b"ply\n", b"solid cube", b"ply\nformat binary_little_endian 1.0\nend_header\n", b"\x80" * 99):
        path.write_bytes(content)
        refused("not a PLY of Gaussian splats")
    mesh = np.zeros(3, [("x", "f4"), ("y", "f4"), ("z", "f4")])
    PlyData([PlyElement.describe(mesh, "vertex")]).write(str(path))
    refused("not a PLY of Gaussian splats")
    splats = random_splats(3)
    splats.means[0, 0] = np.nan
    write_ply(path, splats)
    refused("not finite")
    path.unlink()
    path.mkdir()
    refused("Cannot read")


@settings(max_examples=150, deadline=None)
@given(keep=st.floats(0, 1, exclude_max=True))
def test_truncated_files_are_refused(tmp_path_factory, keep):
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    write_ply(path, random_splats(20))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(UserError):
        read_ply(path)


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 1200), value=st.integers(0, 255))
def test_a_changed_header_is_refused_or_read(tmp_path_factory, position, value):
    """PLY has no checksum: what may not happen is any other exception."""
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    write_ply(path, random_splats(20))
    data = bytearray(path.read_bytes())
    data[position] = value
    path.write_bytes(data)
    try:
        splats = read_ply(path)
    except UserError:
        return
    assert np.isfinite(splats.means).all()


def test_unwritable_places_are_named_and_leave_nothing(tmp_path):
    with pytest.raises(UserError, match=r"a\.ply"):
        write_ply(tmp_path / "missing" / "a.ply", random_splats(3))
    assert list(tmp_path.iterdir()) == []
