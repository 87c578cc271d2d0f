"""What the tests of the log are given."""

from __future__ import annotations

import pytest
from tests.conformance.logs import Given


@pytest.fixture(params=["memory", "kafka"])
def given(request: pytest.FixtureRequest) -> Given:
    return Given(None if request.param == "memory" else request.getfixturevalue("kafka_bootstrap"))
