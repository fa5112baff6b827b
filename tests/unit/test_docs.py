"""The pages of docs/: those made from the code are up to date, and every link leads somewhere."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from highnoon.shared.domain.study import StudySpec
from highnoon.shared.runtime.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted(DOCS.glob("*.md"))]
_ANOTHER_PRODUCTS = {"agent-tools.md", "webui.md"}
"""The guide's last line links to them; the site leaves it out."""


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["study_file", "settings"])
def test_a_reference_is_what_the_models_say(generate: ModuleType, page: str) -> None:
    written = (DOCS / f"{page.replace('_', '-')}.md").read_text()
    assert written == getattr(generate, page)(), "python docs/generate.py writes it again"


def test_limits_that_are_no_whole_numbers_are_shown_whole(generate: ModuleType) -> None:
    assert "| `quantile_fraction` | number > 0, ≤ 0.5 |" in generate.study_file()


def test_every_key_and_setting_has_a_meaning(generate: ModuleType) -> None:
    keys = set(StudySpec.model_fields) - {"bundle", "code", "git"}
    assert set(generate.STUDY_KEYS) == keys, "docs/generate.py has the meaning of each key of a study"
    meanings = generate.setting_meanings()
    assert set(meanings) == set(Settings.model_fields)
    assert all(len(meaning) > 20 for meaning in [*generate.STUDY_KEYS.values(), *meanings.values()])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith(("http://", "https://")) or link in _ANOTHER_PRODUCTS:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
            assert anchor in map(_anchor, headings), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        assert (ROOT / path).is_file(), f"{page.name} names {path}"
        assert not name or f"def {name}(" in (ROOT / path).read_text(), f"{page.name} names {path}::{name}"


def test_no_page_promises_a_package_index() -> None:
    """The package is on none: `pip install highnoon-hpo` would find nothing, or another's."""
    for page in PAGES:
        found = re.search(r"pip install[^\n`]*highnoon-hpo\b", page.read_text())
        assert found is None, f"{page.name}: {found and found[0]}"


def test_the_site_has_every_page() -> None:
    listed = set(re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {page.name for page in DOCS.glob("*.md")}, "mkdocs.yml lists them under nav"


def _anchor(heading: str) -> str:
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
