"""Fixtures that tests of several parts share."""

from __future__ import annotations

import pytest
from headstudio.heads.arrays import HeadArrays
from headstudio.heads.default_head import default_head as build


@pytest.fixture(scope="session")
def default_head() -> HeadArrays:
    """The default head, cached in the user's cache folder between runs. Do not write into its arrays."""
    return build()
