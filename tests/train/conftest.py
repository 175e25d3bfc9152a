import pytest
from headstudio.guidance.prior import Prior
from support.tiny_prior import write_tiny_prior
from support.training import arkit_head


@pytest.fixture(scope="session")
def prior_folder(tmp_path_factory):
    return write_tiny_prior(tmp_path_factory.mktemp("prior"))


@pytest.fixture
def prior(prior_folder):
    """A fresh one for each test: some tests break it."""
    return Prior.load(prior_folder, device="cpu")


@pytest.fixture(scope="session")
def head():
    return arkit_head()
