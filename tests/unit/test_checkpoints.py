"""The folders of checkpoints: a retry finds them, a zombie attempt does not disturb them, unused ones are removed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import highnoon as hn
from highnoon.shared.domain.errors import NoTrialRunning
from highnoon.shared.objective.attempt import run_attempt
from highnoon.shared.objective.trial_context import checkpoints
from highnoon.workers.trial.checkpoints import TicketCheckpoints


class Silent:
    """A channel that drops everything."""

    def report(self, value: float, step: int) -> None:
        return

    def should_prune(self) -> bool:
        return False

    def progress(self) -> None:
        pass

    def report_params(self, total: int, active: int | None = None) -> None:
        return


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "digits" / "ticket-00007"


def save(folder: Path, text: str = "weights") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model").write_text(text)


def test_retry_finds_the_checkpoint_of_the_attempt_before(folder: Path) -> None:
    ticket = TicketCheckpoints(folder)
    save(ticket.begin(1))
    ticket.leave()

    own = ticket.begin(3)

    assert (own / "model").read_text() == "weights"
    assert list(folder.iterdir()) == [own]


def test_other_files_beside_the_folders_of_attempts_do_not_keep_a_ticket_from_running(folder: Path) -> None:
    ticket = TicketCheckpoints(folder)
    first = ticket.begin(1)
    save(first)
    shutil.make_archive(str(first), "zip", first)
    (folder / "attempt-7").write_text("a file of the trial")
    for name in ("attempt-best", "attempt-3 copy", "attempt-\u00b2"):
        (folder / name).mkdir()
    ticket.leave()
    assert ticket.has_since(1) and not ticket.has_since(2)

    assert (ticket.begin(2) / "model").read_text() == "weights"


def test_zombie_attempt_does_not_overwrite_its_successor(folder: Path) -> None:
    ticket = TicketCheckpoints(folder)
    zombies = ticket.begin(1)
    save(zombies)
    save(ticket.begin(2), "of the second")

    save(zombies, "of the zombie")

    assert (ticket.begin(3) / "model").read_text() == "of the second"


def test_first_attempt_ignores_leftovers_of_another_study(folder: Path) -> None:
    save(TicketCheckpoints(folder).begin(1))

    TicketCheckpoints(folder).remove()

    assert not TicketCheckpoints(folder).begin(1).exists()


def test_empty_folders_and_finished_tickets_are_removed(folder: Path) -> None:
    ticket, other = TicketCheckpoints(folder), TicketCheckpoints(folder.with_name("ticket-00008"))
    save(other.begin(1))
    ticket.begin(1).mkdir(parents=True)

    ticket.leave()
    assert [path.name for path in folder.parent.iterdir()] == ["ticket-00008"]

    ticket.remove()
    other.remove()
    assert list(folder.parent.parent.iterdir()) == []


def test_workers_trial_gets_a_folder_that_outlives_it(tmp_path: Path) -> None:
    lasting = tmp_path / "ticket" / "attempt-1"

    def objective(params: object) -> float:
        assert hn.checkpoint_dir() == hn.checkpoint_dir() == lasting
        assert [checkpoints().for_next_training().name for _ in range(2)] == ["training-1", "training-2"]
        save(hn.checkpoint_dir())
        return 0.0

    assert run_attempt(objective, {}, Silent(), checkpoints=lasting).message == ""
    assert (lasting / "model").exists()


def test_folder_is_created_only_on_request(tmp_path: Path) -> None:
    run_attempt(lambda params: 0.0, {}, Silent(), checkpoints=tmp_path / "ticket" / "attempt-1")

    assert list(tmp_path.iterdir()) == []


def test_in_process_each_trial_has_a_temporary_folder() -> None:
    seen: list[Path] = []
    kept: list[object] = []

    def objective(params: object) -> float:
        save(hn.checkpoint_dir())
        seen.append(hn.checkpoint_dir())
        kept.append(checkpoints())
        return 0.0

    hn.HPOTrialManager("digits", n_trials=2).optimize(objective, {"x": ("uniform", 0.0, 1.0)})

    assert len(set(seen)) == 2
    assert not any(folder.exists() for folder in seen)


def test_checkpoint_dir_outside_a_trial_raises_no_trial_running() -> None:
    with pytest.raises(NoTrialRunning, match="inside an objective"):
        hn.checkpoint_dir()
