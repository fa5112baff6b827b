"""The state that a stack keeps in its data folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from highnoon.shared.domain.errors import EmbeddedServiceError
from highnoon.shared.runtime.data_dir import Home


@pytest.mark.parametrize("content", ['{"services": {"redis": {"password": "secret"}}}', '{"services": {"secret": '])
def test_a_damaged_state_is_refused_without_what_it_holds(content: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(EmbeddedServiceError, match="damaged") as refused:
        Home(tmp_path).load()
    assert "secret" not in str(refused.value)
