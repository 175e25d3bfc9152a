"""FLAME files: read by structure, skinned like smplx, and refused by name when they are not whole."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
import torch
from headstudio.errors import UserError
from headstudio.heads.flame import read_flame, read_landmark_embedding
from headstudio.heads.head import Head
from headstudio.heads.skinning import skin
from scipy import sparse
from support.synthetic_flame import chumpy_module, random_flame, write_flame


@pytest.fixture(scope="module")
def table() -> dict:
    return random_flame()


@pytest.fixture
def small() -> dict:
    return random_flame(identities=6, expressions=4, levels=1)


def poses(count: int, expressions: int, identities: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=generator)

    return draw(count, expressions, scale=1.0), draw(count, 5, 3, scale=0.5), draw(count, identities, scale=1.0)


@pytest.mark.parametrize("chumpy", [(), ("shapedirs", "posedirs", "v_template")])
def test_skinning_equals_smplx(tmp_path, table, monkeypatch, chumpy):
    smplx = pytest.importorskip("smplx")
    for name, module in chumpy_module().items():
        monkeypatch.setitem(sys.modules, name, module)
    path = write_flame(tmp_path / "FLAME_NEUTRAL.pkl", table, chumpy)
    with open(tmp_path / "flame_static_embedding.pkl", "wb") as file:
        pickle.dump({"lmk_face_idx": np.arange(3), "lmk_b_coords": np.full((3, 3), 1 / 3)}, file)
    oracle = smplx.FLAME(str(tmp_path), num_betas=300, num_expression_coeffs=100, batch_size=8, dtype=torch.float64)

    arrays = read_flame(path)
    expression, joints, identity = poses(8, 100, 300)
    joints[0] = 0  # the zero pose is the delicate one
    joints[1, 1:] = 0
    truth = oracle(
        betas=identity.double(),
        expression=expression.double(),
        global_orient=joints[:, 0].double(),
        neck_pose=joints[:, 1].double(),
        jaw_pose=joints[:, 2].double(),
        leye_pose=joints[:, 3].double(),
        reye_pose=joints[:, 4].double(),
    ).vertices.detach()
    assert (truth[2:] - torch.as_tensor(table["v_template"])).abs().amax() > 0.02  # they did move

    posed = Head(arrays)(expression, joints, identity)
    assert (posed - truth).abs().max() < 1e-5
    for i in range(8):
        one = skin(arrays, expression[i].numpy(), joints[i].numpy(), identity[i].numpy())
        assert np.abs(one - truth[i].numpy()).max() < 1e-5
    assert (
        Head(arrays, dtype=torch.float64)(expression.double(), joints.double(), identity.double())
        .sub(truth)
        .abs()
        .max()
        < 1e-7
    )


@pytest.mark.parametrize("joint", range(5))
def test_every_joint_turns_as_in_smplx(tmp_path, table, monkeypatch, joint):
    smplx = pytest.importorskip("smplx")
    path = write_flame(tmp_path / "FLAME_NEUTRAL.pkl", table, ())
    with open(tmp_path / "flame_static_embedding.pkl", "wb") as file:
        pickle.dump({"lmk_face_idx": np.arange(3), "lmk_b_coords": np.full((3, 3), 1 / 3)}, file)
    oracle = smplx.FLAME(str(tmp_path), num_betas=300, num_expression_coeffs=100, batch_size=1)
    joints = torch.zeros(1, 5, 3)
    joints[0, joint] = torch.tensor([0.4, -0.2, 0.1])
    names = ("global_orient", "neck_pose", "jaw_pose", "leye_pose", "reye_pose")
    truth = oracle(**{name: joints[:, i] for i, name in enumerate(names)}).vertices.detach()
    posed = Head(read_flame(path))(torch.zeros(1, 100), joints)
    assert (posed - truth).abs().max() < 1e-5


@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
@pytest.mark.parametrize("dense", [False, True])
def test_all_containers_give_the_same_head(tmp_path, small, suffix, dense):
    reference = read_flame(write_flame(tmp_path / "a.pkl", small, ()), expression_count=4)
    if dense:
        small["J_regressor"] = small["J_regressor"].toarray()
    head = read_flame(write_flame(tmp_path / f"b{suffix}", small), expression_count=4)
    for name in ("vertices", "triangles", "identity", "expression", "pose_correctives", "joint_regressor"):
        assert np.array_equal(getattr(head, name), getattr(reference, name)), name
    assert np.array_equal(head.skin_weights, reference.skin_weights)
    assert head.joints_follow_expression


@pytest.mark.parametrize(("identities", "expressions"), [(300, 100), (20, 7), (30, 1), (100, 50)])
def test_expressions_are_found_in_any_size(tmp_path, identities, expressions):
    table = random_flame(identities, expressions, levels=1)
    head = read_flame(write_flame(tmp_path / "a.pkl", table))
    assert (len(head.identity), len(head.expression)) == (identities, expressions)
    assert np.allclose(head.expression[0], table["shapedirs"][:, :, identities])
    assert np.allclose(head.identity[-1], table["shapedirs"][:, :, identities - 1])


def test_a_file_that_does_not_tell_the_split_is_asked_about(tmp_path, small):
    small["shapedirs"] = np.random.default_rng(0).normal(size=small["shapedirs"].shape) * 0.001
    path = write_flame(tmp_path / "a.pkl", small)
    with pytest.raises(UserError, match="how many of its 10 shape components"):
        read_flame(path)
    assert len(read_flame(path, expression_count=7).expression) == 7
    with pytest.raises(UserError, match="cannot have 11"):
        read_flame(path, expression_count=11)


def test_no_pose_correctives(tmp_path, small):
    small.pop("posedirs")
    head = read_flame(write_flame(tmp_path / "a.pkl", small), 4)
    assert head.pose_correctives.shape == (36, len(head.vertices), 3)
    assert not head.pose_correctives.any()


def test_own_uv_is_kept_and_a_missing_one_is_made(tmp_path, small):
    head = read_flame(write_flame(tmp_path / "a.pkl", small), 4)
    assert head.uv.min() >= 0
    assert head.uv.max() <= 1
    corners = head.uv[head.uv_triangles]
    pole = np.abs(head.vertices[head.triangles][..., 1]).max(1) > 0.11
    assert np.ptp(corners[~pole][..., 0], axis=1).max() < 0.45  # none is stretched across the seam
    # The face is in the middle, the subject's left on the right
    front = head.vertices[head.triangles].mean(1)[:, 2] > 0.08
    assert np.abs(corners[front].mean((0, 1))[0] - 0.5) < 0.06
    small["vt"] = np.random.default_rng(1).random((50, 2))
    small["ft"] = (small["f"] % 50).astype(np.uint32)
    head = read_flame(write_flame(tmp_path / "b.pkl", small), 4)
    assert np.allclose(head.uv, small["vt"])
    assert np.array_equal(head.uv_triangles, small["ft"])


def test_the_licence_is_marked_and_open_is_not_taken_for_granted(tmp_path, small):
    assert "non-commercial" in read_flame(write_flame(tmp_path / "generic_model.pkl", small), 4).licence
    assert "if it is" in read_flame(write_flame(tmp_path / "flame2023_Open.pkl", small), 4).licence


def spoil(key, value):
    def change(table):
        table[key] = value(table[key]) if callable(value) else value

    return change


def with_value(index, value):
    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


DAMAGE = {
    **{f"no {key}": (lambda table, key=key: table.pop(key), key) for key in
       ("v_template", "f", "shapedirs", "J_regressor", "weights", "kintree_table")},
    "flat vertices": (spoil("v_template", lambda a: a[:, :2]), "v_template"),
    "one vertex less": (spoil("v_template", lambda a: a[:-1]), "f points outside"),
    "no vertices": (spoil("v_template", lambda a: a[:0]), "f points outside"),
    "NaN vertex": (spoil("v_template", with_value((3, 1), np.nan)), "v_template holds numbers"),
    "infinite shape": (spoil("shapedirs", with_value((3, 1, 2), np.inf)), "shapedirs holds numbers"),
    "shape too large for float32": (spoil("shapedirs", with_value((3, 1, 2), 1e200)), "shapedirs holds numbers"),
    "NaN corrective": (spoil("posedirs", with_value((3, 1, 2), np.nan)), "posedirs holds numbers"),
    "text for vertices": (spoil("v_template", "text"), "v_template should be an array"),
    "number for vertices": (spoil("v_template", np.float64(1)), "v_template should be an array"),
    "integer vertices": (spoil("v_template", lambda a: np.zeros(a.shape, int)), "v_template holds int64"),
    "centimetres": (spoil("v_template", lambda a: a * 100), "in metres"),
    "quads": (spoil("f", lambda a: np.tile(a, (1, 2))[:, :4]), "f has shape"),
    "triangle out of range": (spoil("f", with_value((0, 0), 42)), "f points outside"),
    "negative triangle": (spoil("f", lambda a: with_value((0, 0), -1)(a.astype(int))), "f points outside"),
    "triangles of floats": (spoil("f", lambda a: a.astype(float)), "f holds float64"),
    "no triangles": (spoil("f", lambda a: a[:0]), "f is empty"),
    "shapes of another mesh": (spoil("shapedirs", lambda a: a[:-1]), "shapedirs has shape"),
    "shapes without components": (spoil("shapedirs", lambda a: a[..., 0]), "shapedirs should be an array"),
    "other correctives": (spoil("posedirs", lambda a: a[..., :27]), "posedirs has shape"),
    "weights of four joints": (spoil("weights", lambda a: a[:, :4]), "weights has shape"),
    "weights that do not sum to 1": (spoil("weights", lambda a: a * 0.5), "rows of weights"),
    "regressor turned round": (spoil("J_regressor", lambda a: a.T.tocsc()), "J_regressor has shape"),
    "regressor for a larger mesh": (
        spoil("J_regressor", lambda a: sparse.csc_matrix((a.data, a.indices, a.indptr), shape=(9, a.shape[1]))),
        "J_regressor has shape",
    ),
    "another skeleton": (
        spoil("kintree_table", np.array([[-1, 0, 1, 2, 3], [0, 1, 2, 3, 4]])), "kintree_table is another skeleton"
    ),
    "a body": (spoil("kintree_table", np.zeros((2, 24), int)), "kintree_table is another skeleton"),
    "NaN skeleton": (spoil("kintree_table", np.full((2, 5), np.nan)), "kintree_table is another skeleton"),
    "one-row skeleton": (spoil("kintree_table", np.zeros(5, int)), "kintree_table should be"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_damaged_models_are_refused_by_name(tmp_path, small, name, suffix):
    change, message = DAMAGE[name]
    change(small)
    path = write_flame(tmp_path / f"broken{suffix}", small, ())
    with pytest.raises(UserError, match=rf"broken\{suffix}.*{message}"):
        read_flame(path, 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"not a pickle at all", "damaged or not a pickle"),
        (b"PK\x03\x04 and then nothing", "damaged or not"),
        (b"<html>Please sign in</html>", "damaged or not a pickle"),
        (b"cos\nsystem\n(S'echo sprung'\ntR.", r"asks for os\.system"),
    ],
)
def test_files_that_are_no_model(tmp_path, data, message):
    path = tmp_path / "flame.pkl"
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"flame\.pkl.*{message}"):
        read_flame(path)


def test_a_zip_that_is_no_npz(tmp_path):
    import zipfile

    path = tmp_path / "flame.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match=r"flame\.zip"):
        read_flame(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="no head file at"):
        read_flame(tmp_path / "none.pkl")
    with pytest.raises(UserError, match="is a folder"):
        read_flame(tmp_path)


def test_truncated_models(tmp_path, small):
    for suffix in (".pkl", ".npz"):
        data = write_flame(tmp_path / f"whole{suffix}", small).read_bytes()
        path = tmp_path / f"cut{suffix}"
        for part in np.linspace(0, 0.999, 40):
            path.write_bytes(data[: int(part * len(data))])
            with pytest.raises(UserError, match=rf"cut\{suffix}"):
                read_flame(path)


def embedding(**changes) -> dict:
    return {
        "lmk_face_idx": np.arange(5),
        "lmk_b_coords": np.full((5, 3), 1 / 3),
        "landmark_indices": np.array([276, 283, 282, 295, 285]),
        **changes,
    }


def test_landmark_embedding(tmp_path):
    np.savez(tmp_path / "lmk.npz", **embedding())
    landmarks = read_landmark_embedding(tmp_path / "lmk.npz", 80)
    assert landmarks.indices.tolist() == [276, 283, 282, 295, 285]
    assert landmarks.triangles.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lmk_face_idx": np.arange(5) * 50}, "lmk_face_idx points outside"),
        ({"lmk_face_idx": np.arange(4)}, "lmk_face_idx has shape"),
        ({"lmk_b_coords": np.full((5, 3), np.nan)}, "lmk_b_coords holds numbers"),
        ({"lmk_b_coords": np.ones((5, 3))}, "no barycentric"),
        ({"landmark_indices": np.array([276, 276, 1, 2, 3])}, "twice"),
        ({"landmark_indices": np.array([276, 283, 282, 295, 478])}, "landmark_indices points outside"),
    ],
)
def test_damaged_landmark_embeddings(tmp_path, changes, message):
    np.savez(tmp_path / "lmk.npz", **embedding(**changes))
    with pytest.raises(UserError, match=rf"lmk\.npz.*{message}"):
        read_landmark_embedding(tmp_path / "lmk.npz", 80)


def test_a_landmark_file_without_its_keys(tmp_path):
    np.savez(tmp_path / "lmk.npz", a=np.zeros(3))
    with pytest.raises(UserError, match="has no lmk_face_idx"):
        read_landmark_embedding(tmp_path / "lmk.npz", 80)
    with pytest.raises(UserError, match="no landmark file at"):
        read_landmark_embedding(tmp_path / "none.npz", 80)
