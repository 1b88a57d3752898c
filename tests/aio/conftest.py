from __future__ import annotations

import pytest

from .peers import WAYS, Way


@pytest.fixture(params=WAYS, ids=["socket", "thread"])
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found
