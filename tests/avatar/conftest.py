"""One small avatar, and its file's bytes, for the tests of the file."""

import pytest
from headstudio.avatar.file import Avatar, save_avatar
from support.avatars import small_avatar


@pytest.fixture(scope="package")
def avatar() -> Avatar:
    return small_avatar()


@pytest.fixture(scope="package")
def data(avatar, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("avatar") / "one.avatar.npz"
    save_avatar(path, avatar)
    return path.read_bytes()
