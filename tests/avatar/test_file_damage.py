"""The avatar file: no damaged or hostile file gets through, and each is refused by name."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from dataclasses import fields

import numpy as np
import pytest
from headstudio.avatar import archive
from headstudio.avatar.file import VERSION, Avatar, load_avatar
from headstudio.errors import UserError
from hypothesis import given, settings
from hypothesis import strategies as st


def same(one: Avatar, two: Avatar) -> bool:
    def equal(a, b) -> bool:
        if isinstance(a, np.ndarray):
            return a.dtype == b.dtype and np.array_equal(a, b)
        if hasattr(a, "__dataclass_fields__"):
            return all(equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
        return a == b

    return equal(one, two)


def rewritten(data: bytes, changes: dict[str, np.ndarray | None]) -> bytes:
    """The archive with arrays replaced, added, or (None) taken out."""
    with np.load(io.BytesIO(data)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays.update(changes)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: array for name, array in arrays.items() if array is not None})
    return buffer.getvalue()


def with_meta(data: bytes, **changes) -> bytes:
    with np.load(io.BytesIO(data)) as archive:
        meta = json.loads(str(archive["meta"]))
    for key, value in changes.items():
        target = meta
        *path, last = key.split("__")
        for part in path:
            target = target[part]
        if value is None:
            del target[last]
        else:
            target[last] = value
    return rewritten(data, {"meta": np.array(json.dumps(meta))})


def refused(tmp_path, data: bytes) -> str:
    path = tmp_path / "bad.avatar.npz"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        load_avatar(path)
    assert "bad.avatar.npz" in str(error.value)
    return str(error.value)


ARRAYS = [
    *("meta", "head.vertices", "head.triangles", "head.expression", "head.expression.step", "head.pose_correctives"),
    *("head.pose_correctives.step", "head.joint_regressor", "head.parents", "head.skin_weights", "head.uv"),
    *("head.uv_triangles", "head.region", "controls.to_expression", "controls.to_joints", "landmarks.indices"),
    *("landmarks.triangles", "landmarks.barycentric", "splats.triangle", "splats.offset", "splats.scale"),
    *("splats.rotation", "splats.sh", "splats.opacity"),
]


def test_the_list_of_arrays_is_complete(data):
    with np.load(io.BytesIO(data)) as archive:
        assert sorted(archive.files) == sorted(ARRAYS)


@pytest.mark.parametrize("name", ARRAYS)
def test_every_missing_misshapen_or_mistyped_array_is_refused(data, tmp_path, name):
    with np.load(io.BytesIO(data)) as archive:
        array = archive[name]
    message = refused(tmp_path, rewritten(data, {name: None}))
    assert name in message or name == "meta"
    refused(tmp_path, rewritten(data, {name: np.array(["text"])}))
    refused(tmp_path, rewritten(data, {name: array[None]}))
    if array.ndim:
        refused(tmp_path, rewritten(data, {name: array[:-1]}))
        if name != "head.uv":  # one more texture coordinate that no triangle uses is no fault
            refused(tmp_path, rewritten(data, {name: np.concatenate([array, array[:1]])}))
        refused(tmp_path, rewritten(data, {name: array.astype(np.complex64)}))
        refused(tmp_path, rewritten(data, {name: array.astype(np.float64)}))
    if array.dtype.kind == "f":
        for bad in (np.nan, np.inf):
            broken = array.copy()
            broken.flat[0] = bad
            refused(tmp_path, rewritten(data, {name: broken}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("head.triangles", 42),
        ("head.triangles", -1),
        ("head.parents", 4),
        ("head.skin_weights", 9),
        ("head.uv_triangles", 10_000),
        ("head.region", 2),
        ("landmarks.triangles", 80),
        ("splats.triangle", 80),
        ("splats.triangle", -1),
        ("splats.scale", 0),
        ("splats.scale", -1),
        ("splats.rotation", 0),
    ],
)
def test_numbers_out_of_range_are_refused(data, tmp_path, name, value):
    with np.load(io.BytesIO(data)) as archive:
        array = archive[name].copy()
    array[-1] = value
    assert name.split(".")[1] in refused(tmp_path, rewritten(data, {name: array}))


@pytest.mark.parametrize(
    "changes",
    [
        {"head": None},
        {"head": [1]},
        {"provenance": None},
        {"provenance": "none"},
        {"format": "something else"},
        {"version": None},
        {"version": "1"},
        {"version": 0},
        {"version": True},
        {"head__name": 3},
        {"head__licence": None},
        {"head__expression_names": "abc"},
        {"head__expression_names": [1, 2, 3, 4]},
        {"head__joint_names": ["root"]},
        {"head__control_names": []},
        {"head__region_names": ["one"]},
    ],
)
def test_descriptions_that_make_no_sense_are_refused(data, tmp_path, changes):
    refused(tmp_path, with_meta(data, **changes))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", "[" * 100_000])
def test_descriptions_that_are_no_json_are_refused(data, tmp_path, text):
    refused(tmp_path, rewritten(data, {"meta": np.array(text)}))


def test_a_newer_version_is_refused_with_advice(data, tmp_path):
    message = refused(tmp_path, with_meta(data, version=VERSION + 1))
    assert "newer" in message
    assert "Update" in message


def test_files_that_are_no_archive(tmp_path):
    for content in (b"", b"PK", b"hello" * 1000, b"\x00" * 5000, os.urandom(3000)):
        refused(tmp_path, content)
    with pytest.raises(UserError, match="no avatar file"):
        load_avatar(tmp_path / "absent.avatar.npz")
    with pytest.raises(UserError, match="folder"):
        load_avatar(tmp_path)


def test_pickles_are_not_opened(data, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **{"splats.sh": np.array([Hostile()], dtype=object)})
    message = refused(tmp_path, buffer.getvalue())
    assert "object" in message
    assert not (tmp_path / "executed").exists()


def test_other_members_are_refused(data, tmp_path):
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("../../evil.py", "print()")
    assert "evil" in refused(tmp_path, buffer.getvalue())


def npy(header: str, body: bytes, version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + body


@pytest.mark.parametrize(
    "member",
    [
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }", b"1234"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", b"1234"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, -2), }", b"1234"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"12345678"),
        npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", b"1234"),
        npy("{'descr': '|V4', 'fortran_order': False, 'shape': (1,), }", b"1234"),
        npy("{'descr': '<f4'}", b"1234"),
        npy("__import__('os').getcwd()", b"1234"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", b"12345"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", b"1234", b"\x03\x00"),
        npy("(" * 300, b""),
        b"",
        b"\x93NUMPY",
    ],
)
def test_hostile_array_headers_are_refused(data, tmp_path, member):
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("extra.npy", member)
    refused(tmp_path, buffer.getvalue())


def test_zip_bombs_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 20)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("head.vertices.npy", bytes(1 << 21))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    assert "unpacks to more" in refused(tmp_path, buffer.getvalue())


def test_a_member_that_lies_about_its_size_is_not_unpacked_further(tmp_path):
    """The directory says 100 bytes, the stream holds 50 million."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("meta.npy", bytes(50_000_000))
    raw = buffer.getvalue()
    lying = raw.replace((50_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    assert lying != raw
    started = time.perf_counter()
    refused(tmp_path, lying)
    assert time.perf_counter() - started < 1


@settings(max_examples=250, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_harmless(avatar_folder, data, position, bit):
    """Everything but a few of zip's own fields (dates, flags that nobody reads) is under a checksum."""
    broken = bytearray(data)
    broken[int(position * len(broken))] ^= 1 << bit
    still_sound(avatar_folder, data, bytes(broken))


@settings(max_examples=100, deadline=None)
@given(keep=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_noticed(avatar_folder, data, keep):
    path = avatar_folder / "short.avatar.npz"
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(UserError):
        load_avatar(path)


@settings(max_examples=100, deadline=None)
@given(position=st.floats(0, 1), noise=st.binary(min_size=1, max_size=40), replacing=st.booleans())
def test_noise_inside_the_file_is_noticed_or_harmless(avatar_folder, data, position, noise, replacing):
    at = int(position * len(data))
    still_sound(avatar_folder, data, data[:at] + noise + data[at + (len(noise) if replacing else 0) :])


def still_sound(folder, data: bytes, broken: bytes) -> None:
    (folder / "good.avatar.npz").write_bytes(data)
    (folder / "broken.avatar.npz").write_bytes(broken)
    try:
        loaded = load_avatar(folder / "broken.avatar.npz")
    except UserError:
        return
    assert same(loaded, load_avatar(folder / "good.avatar.npz"))


@pytest.fixture(scope="module")
def avatar_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mutants")
