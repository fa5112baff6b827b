"""The argument cluster= of the Python interface."""

from __future__ import annotations

from pathlib import Path

import pytest

from highnoon.cluster import found_cluster
from highnoon.shared.domain.errors import InvalidInput


def test_data_folder_or_address_is_a_cluster(tmp_path: Path) -> None:
    assert found_cluster(tmp_path).is_embedded and found_cluster(str(tmp_path)).settings.home == tmp_path
    assert found_cluster("postgresql://user@host/db").url.endswith("://user@host/db")


@pytest.mark.parametrize("kind", [str, Path])
def test_folder_that_is_not_there_is_named(kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput) as refused:
        found_cluster(kind(".highnoon"))

    message = str(refused.value)
    assert f"cluster: there is no folder {tmp_path}/.highnoon (got " in message
    assert "coordinator start" in message and "postgresql://" in message and 'or ".highnoon"' not in message


def test_another_type_is_refused_with_what_it_got() -> None:
    with pytest.raises(InvalidInput, match=r"must be the address .* \(got 7\)"):
        found_cluster(7)  # type: ignore[arg-type]
