"""What the stories of a cluster share. Each module has a cluster of its own, made by `running_cluster` or by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import Books, Cluster


@pytest.fixture(scope="module")
def books(cluster: Cluster) -> Iterator[Books]:
    with cluster.books() as books:
        yield books


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A study of the test's own name."""
    return str(request.node.name).removeprefix("test_")
