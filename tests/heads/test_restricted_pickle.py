"""The restricted unpickler: everything that data needs, nothing that runs, and every damaged file a clear error."""

from __future__ import annotations

import copyreg
import pickle
import pickletools
import struct
import sys
import tracemalloc
import types

import numpy as np
import pytest
from headstudio.errors import UserError
from headstudio.heads import restricted_pickle
from headstudio.heads.pickled_data import LABELS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from support.synthetic_flame import chumpy_module, python2_pickle


def write(tmp_path, data: bytes):
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    return path


def same(a, b) -> bool:
    if sparse.issparse(a) or sparse.issparse(b):
        return sparse.issparse(a) and a.format == b.format and (a != b).nnz == 0
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def everything() -> dict:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(4, 3))
    return {
        **{kind: rng.integers(0, 2, (3, 2)).astype(kind) for kind in ("b1", "i1", "u2", "i4", "u4", "i8", "f2", "f4")},
        "c order": shared,
        "shared": shared,
        "fortran": np.asfortranarray(rng.normal(size=(5, 4, 3))),
        "big endian": np.arange(4, dtype=">f8"),
        "empty": np.zeros((0, 3), np.float32),
        "no dimension": np.array(1.5),
        "csc": sparse.random(5, 20, 0.3, "csc", random_state=1),
        "csr": sparse.random(5, 20, 0.3, "csr", random_state=1),
        "coo": sparse.random(5, 20, 0.3, "coo", random_state=1),
        "numpy scalars": [np.float64(2.5), np.uint32(7), np.bool_(True)],
        "numbers": (
            1,
            -1,
            255,
            256,
            65535,
            1 << 31,
            -(1 << 31),
            1 << 80,
            -(1 << 80),
            2.5,
            float("inf"),
            True,
            False,
            None,
        ),
        "text": ["", "plain", "Grüße \u4e00 \U0001f600 \\ \n", b"", b"bytes \x00\xff", "x" * 300, b"y" * 300],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        7: {"nested": {"deep": [[], {}]}},
    }


@pytest.mark.parametrize("protocol", range(6))
def test_reads_what_the_standard_unpickler_reads(tmp_path, protocol):
    original = everything()
    loaded = restricted_pickle.load(write(tmp_path, pickle.dumps(original, protocol)))
    assert same(loaded.pop("big endian"), np.arange(4.0))  # comes back in the machine's order
    original.pop("big endian")
    assert same(loaded, original)
    assert loaded["c order"] is loaded["shared"]
    assert loaded["c order"].flags.writeable


@pytest.mark.parametrize("protocol", range(6))
def test_sets_become_lists(tmp_path, protocol):
    loaded = restricted_pickle.load(write(tmp_path, pickle.dumps({"a": {3}, "b": frozenset([4])}, protocol)))
    assert loaded == {"a": [3], "b": [4]}


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_reads_python_2_files_with_chumpy_arrays(tmp_path, protocol):
    rng = np.random.default_rng(2)
    plain, wrapped = rng.normal(size=(6, 3)), rng.normal(size=(6, 3, 4))
    matrix = sparse.random(5, 6, 0.5, "csc", random_state=3)
    table = {"plain": plain, "matrix": matrix, "text": "lbs \xe9"}
    data = python2_pickle(table, protocol, chumpy={"wrapped": wrapped})
    for name in (b"chumpy.ch\nCh", b"numpy.core.multiarray\n_reconstruct", b"scipy.sparse.csc\ncsc_matrix"):
        assert name in data
    loaded = restricted_pickle.load(write(tmp_path, data))
    assert same(loaded, {**table, "wrapped": wrapped})


def test_the_python_2_writer_is_read_by_the_standard_unpickler_too(monkeypatch):
    """Holds the test's own writer against an independent reader."""
    for name, module in chumpy_module().items():
        monkeypatch.setitem(sys.modules, name, module)
    array = np.random.default_rng(4).normal(size=(6, 3))
    for protocol in (0, 1, 2):
        loaded = pickle.loads(python2_pickle({"a": array}, protocol, chumpy={"c": array}), encoding="latin1")
        assert np.array_equal(loaded["a"], array)
        assert np.array_equal(loaded["c"].x, array)


# Hostile files

CANARY: list[object] = []


def spring(*arguments):
    CANARY.append(arguments)


class Reduce:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *arguments, state=None):
        self.recipe = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.recipe


class WithState:
    def __setstate__(self, state):
        CANARY.append(state)


def hostile() -> dict[str, object]:
    import builtins
    import os
    import subprocess

    return {
        "os.system": Reduce(os.system, "echo sprung"),
        "subprocess": Reduce(subprocess.Popen, ["echo"]),
        "eval": Reduce(builtins.eval, "1"),
        "exec": Reduce(builtins.exec, "1"),
        "getattr": Reduce(getattr, WithState, "__setstate__"),
        "import": Reduce(builtins.__import__, "os"),
        "open": Reduce(open, "x", "w"),
        "own function": Reduce(spring, 1),
        "own class": WithState(),
        "own state": Reduce(WithState, state={"a": 1}),
        "numpy.load": Reduce(np.load, "x.npy"),
        "numpy.fromfile": Reduce(np.fromfile, "/etc/passwd"),
        "numpy.memmap": Reduce(np.memmap, "x"),
        "numpy.frombuffer": Reduce(np.frombuffer, b"abcd"),
        "numpy.vectorize": Reduce(np.vectorize, spring),
        "numpy.ndarray called": Reduce(np.ndarray, (10**9,)),
        "numpy.zeros": Reduce(np.zeros, (3,)),
        "sparse called": Reduce(sparse.csc_matrix, (5, 5)),
        "sparse.load_npz": Reduce(sparse.load_npz, "x"),
        "object array": np.array([Reduce(spring, 2), None], object),
        "record array": np.zeros(2, [("a", "f4")]),
        "text array": np.array(["a", "b"]),
        "matrix": np.zeros((1, 1)).view(np.matrix),
        "codecs": Reduce(__import__("codecs").decode, b"61", "hex"),
        "class itself": os.PathLike,
        "allowed class itself": np.ndarray,
        "types.SimpleNamespace": types.SimpleNamespace(a=1),
        "complex": 1j,
    }


@pytest.mark.parametrize("name", hostile())
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("nested", [False, True])
def test_refuses_everything_else_and_runs_nothing(tmp_path, name, protocol, nested, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    value = hostile()[name]
    data = pickle.dumps({"v_template": np.zeros(3), "x": [({"y": value},)] if nested else value}, protocol)
    CANARY.clear()
    path = write(tmp_path, data)
    with pytest.raises(UserError, match=r"file\.pkl"):
        restricted_pickle.load(path)
    assert CANARY == []
    assert [p.name for p in tmp_path.iterdir()] == ["file.pkl"]
    assert "sprung" not in "".join(capfd.readouterr())


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


RAW = {
    "os system, protocol 0": (b"cos\nsystem\n(S'echo sprung'\ntR.", "os.system"),
    "builtins of Python 2": (b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__.eval"),
    "INST": (b"(S'echo sprung'\nios\nsystem\n.", "os.system"),
    "OBJ": (b"(cos\nsystem\nS'echo sprung'\no.", "os.system"),
    "STACK_GLOBAL": (b"\x80\x04" + text("os") + text("system") + b"\x93(" + text("echo sprung") + b"tR.", "os.system"),
    "dotted STACK_GLOBAL": (b"\x80\x04" + text("numpy") + text("ndarray.tofile") + b"\x93.", "numpy.ndarray.tofile"),
    "dotted GLOBAL": (b"cnumpy\ncore.multiarray._reconstruct\n.", "numpy.core.multiarray._reconstruct"),
    "module by the memo": (
        b"\x80\x04" + text("os") + b"q\x07" + b"0h\x07" + text("system") + b"\x93(" + text("echo sprung") + b"tR.",
        "os.system",
    ),
    "NEWOBJ": (b"\x80\x02cos\nPathLike\n)\x81.", "os.PathLike"),
    "NEWOBJ_EX": (b"\x80\x04" + text("os") + text("PathLike") + b"\x93)}\x92.", "os.PathLike"),
    "NEWOBJ of an array": (b"\x80\x02cnumpy\nndarray\n(K\x03t\x81.", "ndarray"),
    "EXT1": (b"\x80\x02\x82\x01.", "extension"),
    "EXT2": (b"\x80\x02\x83\x01\x00.", "extension"),
    "EXT4": (b"\x80\x02\x84\x01\x00\x00\x00.", "extension"),
    "PERSID": (b"Pid\n.", "outside the file"),
    "BINPERSID": (b"K\x01Q.", "outside the file"),
    "NEXT_BUFFER": (b"\x80\x05\x97.", "outside the file"),
    "BUILD on a dictionary": (b"}}b.", "a change to an object"),
    "BUILD on a label": (b"cchumpy.ch\nCh\n}b.", "a change to an object"),
    "BUILD on a list": (b"](S'a'\nS'b'\ndb.", "a change to an object"),
    "BUILD with slots": (b"\x80\x02cchumpy.ch\nCh\n)\x81N}\x86b.", "a change to an object"),
    "call of a dictionary": (b"})R.", "a call of an object"),
    "call of text": (b"S'os.system'\n)R.", "a call of an object"),
    "call of object": (b"c__builtin__\nobject\n)R.", "a call of object"),
    "arguments for chumpy": (b"\x80\x02cchumpy.ch\nCh\nK\x01\x85\x81.", "arguments for chumpy"),
    "object made of another": (
        b"ccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\nc__builtin__\nset\nNtR.", "an object made of another"
    ),
    "subclass of ndarray": (
        b"cnumpy.core.multiarray\n_reconstruct\n(c__builtin__\nobject\n(K\x00tS'b'\ntR.", "a subclass"
    ),
    "control characters in a name": (b"cos\x1b[31m\nsystem\n.", r"os\\x1b\[31m\.system"),
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_names_what_it_refuses(tmp_path, name, capfd):
    data, message = RAW[name]
    with pytest.raises(UserError, match=message):
        restricted_pickle.load(write(tmp_path, data))
    assert "sprung" not in "".join(capfd.readouterr())


def test_extensions_registered_in_this_process_are_refused_too(tmp_path):
    copyreg.add_extension(__name__, "spring", 0x71)
    try:
        with pytest.raises(UserError, match="extension"):
            restricted_pickle.load(write(tmp_path, b"\x80\x02\x82\x71)R."))
    finally:
        copyreg.remove_extension(__name__, "spring", 0x71)


def test_every_admitted_name_is_data():
    """The list is exact, and short enough to read: no module is admitted as a whole."""
    modules = {module for module, _ in LABELS}
    assert modules == {
        "numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric",
        "_codecs", "copy_reg", "copyreg", "builtins", "__builtin__", "chumpy", "chumpy.ch", "scipy.sparse",
        "scipy.sparse.csc", "scipy.sparse._csc", "scipy.sparse.csr", "scipy.sparse._csr", "scipy.sparse.coo",
        "scipy.sparse._coo",
    }  # fmt: skip
    names = {name for _, name in LABELS}
    assert names == {
        "ndarray", "dtype", "encode", "_reconstructor", "Ch", "_reconstruct", "scalar", "_frombuffer", "object", "set",
        "frozenset", "bytes", "bytearray", "csc_matrix", "csc_array", "csr_matrix", "csr_array", "coo_matrix",
        "coo_array",
    }  # fmt: skip


# Bombs


def array_of(shape: bytes, raw: bytes, kind: bytes = b"f8") -> bytes:
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01(" + shape + b"tcnumpy\ndtype\n(U\x02" + kind + b"K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff"
        b"\xff\xffK\x00tb\x89" + raw + b"tb"
    )  # fmt: skip


def test_the_array_that_the_bombs_are_made_from_is_good(tmp_path):
    data = b"\x80\x02}U\x01a" + array_of(b"K\x02", b"U\x10" + struct.pack("<2d", 1, 2))[2:] + b"s."
    assert restricted_pickle.load(write(tmp_path, data))["a"].tolist() == [1, 2]
    assert pickle.loads(data, encoding="latin1")["a"].tolist() == [1, 2]


BOMBS = {
    "far memo index": b"\x80\x02}r\xff\xff\xff\xff.",  # harmless here; the standard unpickler reserves 64 GB
    "huge shape": array_of(b"L" + b"9" * 40 + b"L\n", b"U\x08" + bytes(8)) + b".",
    "huge product": array_of(b"J\xff\xff\xff\x7f" * 8, b"U\x08" + bytes(8)) + b".",
    "negative side": array_of(b"J\xff\xff\xff\xff", b"U\x08" + bytes(8)) + b".",
    "many dimensions": array_of(b"K\x01" * 40, b"U\x08" + bytes(8)) + b".",
    "zero beside huge": array_of(b"K\x00L" + b"9" * 40 + b"L\n", b"U\x00") + b".",
    "number of many digits": b"L" + b"9" * 100_000 + b"L\n.",
    "long string promised": b"\x80\x04\x8d" + b"\xff" * 8 + b"abc.",
    "long bytes promised": b"\x80\x03B\xff\xff\xff\xffabc.",
    "negative string": b"T\xff\xff\xff\xff.",
    "long number promised": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "negative long number": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "nested lists": b"]" * 100_000 + b"a" * 99_999 + b".",
    "nested tuples": b"\x80\x02)" + b"\x85" * 100_000 + b".",
    "nested tuples as key": b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.",
    "marks alone": b"(" * 100_000 + b".",
    "array as its own list": b"]q\x002a.",
    "dictionary in itself": b"}q\x00S'a'\nh\x00s.",
    "the same text as bytes again and again": (
        b"}q\x02S'a'\n(c_codecs\nencode\nq\x010X" + struct.pack("<I", 1 << 20) + b"z" * (1 << 20) + b"q\x000"
        + b"h\x01h\x00\x85R" * 200 + b"ls."
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.timeout(30)
def test_bombs_are_refused_without_memory(tmp_path, name):
    path = write(tmp_path, BOMBS[name])
    tracemalloc.start()
    try:
        if name == "far memo index":
            assert restricted_pickle.load(path) == {}
        else:
            with pytest.raises(UserError, match=r"file\.pkl"):
                restricted_pickle.load(path)
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()


def test_programs_without_end_are_stopped(tmp_path):
    with pytest.raises(UserError, match="far more instructions"):
        restricted_pickle.load(write(tmp_path, b"N0" * 501_000 + b"."))


def test_shared_containers_take_linear_time(tmp_path):
    """Forty lists, each holding the one before twice: a trillion leaves if they were copied."""
    data = b"]" + b"".join(b"p%d\n0(g%d\ng%d\nl" % (i, i, i) for i in range(40))
    loaded = restricted_pickle.load(write(tmp_path, b"}S'a'\n" + data + b"s."))
    assert loaded["a"][0] is loaded["a"][1]


SPARSE_DAMAGE = {
    "index too large": {"indices": np.array([0, 9], np.int32)},
    "index negative": {"indices": np.array([0, -1], np.int32)},
    "indices of floats": {"indices": np.array([0.0, 1.0])},
    "too few pointers": {"indptr": np.array([0, 2], np.int32)},
    "pointers too far": {"indptr": np.array([0, 1, 99, 2], np.int32)},
    "pointers backwards": {"indptr": np.array([0, 2, 1, 2], np.int32)},
    "too few numbers": {"data": np.array([1.0])},
    "no numbers": {"data": None},
    "strange shape": {"_shape": (2, 3, 4)},
    "huge shape": {"_shape": (2, 1 << 40)},
    "no shape": {"_shape": None},
}


@pytest.mark.parametrize("name", SPARSE_DAMAGE)
def test_damaged_sparse_matrices_never_reach_scipy(tmp_path, name):
    matrix = sparse.csc_matrix(np.array([[1.0, 0, 0], [0, 0, 2]]))
    assert same(restricted_pickle.load(write(tmp_path, pickle.dumps({"m": matrix})))["m"], matrix)
    matrix.__dict__.update(SPARSE_DAMAGE[name])
    with pytest.raises(UserError, match=r"file\.pkl"):
        restricted_pickle.load(write(tmp_path, pickle.dumps({"m": matrix})))


# Damage


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello", "damaged or not a pickle"),
        (b"PK\x03\x04 a zip", "outside the file|damaged"),
        (pickle.dumps([1, 2]), "no table"),
        (pickle.dumps("text"), "no table"),
        (b"\x80\x09N.", "protocol of the future"),
    ],
)
def test_files_that_are_no_table(tmp_path, data, message):
    with pytest.raises(UserError, match=message):
        restricted_pickle.load(write(tmp_path, data))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="no head file at"):
        restricted_pickle.load(tmp_path / "none.pkl")
    with pytest.raises(UserError, match="is a folder"):
        restricted_pickle.load(tmp_path)


def table_or_user_error(path) -> None:
    try:
        table = restricted_pickle.load(path)
    except UserError as error:
        message = str(error)
    else:
        message = path.name
        assert isinstance(table, dict)
    assert path.name in message


def small(protocol: int) -> bytes:
    table = {
        "a": np.arange(6.0).reshape(2, 3),
        "m": sparse.csc_matrix(np.eye(3)),
        "s": {1},
        "n": [np.float32(1), 2, 2.5, "text", b"bytes", None, (1, 2, 3, 4)],
    }
    if protocol < 3:
        table.pop("s")
        return python2_pickle({**table, "n": [1, 2.5, "t"]}, protocol, chumpy={"c": np.zeros((2, 2))})
    return pickle.dumps(table, protocol)


@pytest.mark.parametrize("protocol", range(6))
def test_truncations_are_user_errors(tmp_path, protocol):
    data = small(protocol)
    for end in range(0, len(data), 2 if protocol else 5):
        with pytest.raises(UserError):
            restricted_pickle.load(write(tmp_path, data[:end]))


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(protocol=st.integers(0, 5), edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4))
def test_changed_bytes_end_in_a_table_or_a_user_error(tmp_path, protocol, edits):
    data = bytearray(small(protocol))
    for place, byte in edits:
        data[int(place * len(data))] = byte
    table_or_user_error(write(tmp_path, bytes(data)))


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [code.code.encode("latin-1") for code in pickletools.opcodes]
            + [b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cchumpy.ch\nCh\n", b"ccopy_reg\n_reconstructor\n", b"K\x01"]
            + [
                b"cnumpy.core.multiarray\n_reconstruct\n",
                b"c_codecs\nencode\n",
                b"c__builtin__\nset\n",
                b"1\n",
                b"U\x01a",
            ]
            + [
                b"cscipy.sparse.csc\ncsc_matrix\n",
                b"cnumpy.core.multiarray\nscalar\n",
                b"N",
                b"}",
                b")",
                b"(",
                b"R",
                b"b",
            ]
        ),
        max_size=30,
    )
)
def test_programs_of_random_instructions_end_in_a_table_or_a_user_error(tmp_path, program):
    table_or_user_error(write(tmp_path, b"".join(program) + b"."))
