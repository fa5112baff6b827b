"""What `StudyHandle` and `HPOTrialManager` read of their study, and write beside it: best trials, tables, notes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from highnoon.arguments import trial_number
from highnoon.shared.domain import errors
from highnoon.shared.domain.artifact import Artifact, chosen_artifact, listed
from highnoon.shared.domain.errors import NoCompletedTrial, UserInputError
from highnoon.shared.domain.note import Note, NoteChange, Notes
from highnoon.shared.domain.states import MESSAGE, TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params, Trial
from highnoon.shared.runtime.file_store import download, file_store
from highnoon.shared.runtime.settings import load_settings

if TYPE_CHECKING:  # Optuna takes half a second to import, and an objective in a trial process needs none of it
    from highnoon.shared.store.optuna_study import OptunaStudy


class ReadStudy(ABC):
    """What a study of a cluster and one of this process have in common."""

    @abstractmethod
    def _results(self) -> OptunaStudy:
        """The study, to read it."""

    @abstractmethod
    def _notes(self) -> Notes:
        """The notes by the number of their trial; the note of the study under None."""

    @abstractmethod
    def _annotate(self, trial: int | None, change: NoteChange, seen: str | None) -> Note: ...

    @abstractmethod
    def _nothing_completed(self) -> NoCompletedTrial: ...

    @property
    @abstractmethod
    def _name(self) -> str: ...

    @property
    @abstractmethod
    def _is_maximized(self) -> bool:
        """Of a study with a single objective."""

    @property
    def trials(self) -> list[Trial]:
        """All trials of the study by number, of all processes, also the running and the failed ones."""
        return self._results().trials()

    @property
    def best_trial(self) -> Trial:
        """The best completed trial of the study, of all processes. Raises NoCompletedTrial.

        UserInputError for a study with several objectives.
        """
        best = self._results().best_trial()
        if best is None:
            raise self._nothing_completed()
        return best

    @property
    def best_trials(self) -> list[Trial]:
        """The completed trials that none beats in all objectives, by the first; of one objective the best.

        Raises NoCompletedTrial.
        """
        best = self._results().best_trials()
        if not best:
            raise self._nothing_completed()
        return best

    @property
    def best_params(self) -> Params:
        """The parameters of the best trial. Raises NoCompletedTrial."""
        return dict(self.best_trial.params)

    @property
    def best_value(self) -> float:
        """The value of the best trial: its score, which is its loss without a param_budget. Raises NoCompletedTrial."""
        return _present(self.best_trial.value, "value", self._name)

    @property
    def best_loss(self) -> float:
        """The loss of the best trial, as its objective gave it. Raises NoCompletedTrial."""
        return _present(self.best_trial.loss, "loss", self._name)

    def pareto_front(self) -> list[tuple[int, float, int]]:
        """(trial number, loss, parameter count) of every completed trial that none beats in both, smallest first.

        Independent of lambda. Raises NoCompletedTrial, and UserInputError when no completed trial reported its size.
        """
        completed = self._results().trials([TrialState.COMPLETE])
        if not completed:
            raise self._nothing_completed()
        from highnoon.shared.views.trials import front_by_size

        front = front_by_size(completed, maximize=self._is_maximized)
        if not front:
            raise UserInputError(
                f"study {self._name!r} has no trial with a known size. Build the model with hn.create_model, call "
                'hn.report_params(n) in the objective, or return {"loss": ..., "params": ...}.'
            )
        return [(trial.number, trial.loss or 0.0, trial.params_count or 0) for trial in front]

    def get_param_importance(self) -> dict[str, float]:
        """How much each parameter mattered, as shares of 1, largest first. Raises NoCompletedTrial.

        With fewer than two completed trials, or where nothing sets the better ones apart, all shares are equal, and a
        warning is logged.
        """
        if not self._results().trials([TrialState.COMPLETE]):
            raise self._nothing_completed()
        return self._results().param_importance()

    @property
    def study(self) -> Any:
        """Optuna's own study, for plots and its other functions. Raises UnknownStudy where its storage has none yet."""
        return self._results().optuna_study

    def trials_dataframe(self, *args: Any, **options: Any) -> Any:
        """The trials as a pandas.DataFrame, as Optuna makes it and with its arguments. Raises MissingExtra."""
        return self._results().dataframe(*args, **options)

    def note(
        self,
        text: str | None = None,
        *,
        trial: int | None = None,
        tag: str = "",
        untag: str = "",
        seen: str | None = None,
    ) -> Note:
        """The note beside the study, or one of its trials; changed where something is given ("" removes the text).

        Lists and the dashboard show it, and optuna-dashboard its text. With `seen`, the `version` of the note that you
        have read, nothing is changed that another person has changed since: StudyConflict. Raises InvalidInput, and
        UserInputError for a number that no trial has.
        """
        trial = None if trial is None else trial_number(trial)
        if text is None and not tag and not untag:
            return self._notes().get(trial, Note())
        change = NoteChange(text=text, tag=(tag,) if tag else (), untag=(untag,) if untag else ())
        return self._annotate(trial, change, seen)


class StudyResults(ReadStudy):
    """Of a study in this process. Each member raises UnknownStudy where there is none yet."""

    _spec: StudySpec

    @property
    @abstractmethod
    def _artifacts_place(self) -> str | Path: ...

    def metric_history(self, trial: int) -> dict[str, list[tuple[int, float]]]:
        """What a trial that has ended logged: (step, value) by step of each metric that it logged more than once.

        Thinned, see `hn.log`. Raises UserInputError for a number that no trial has.
        """
        return self._results().metric_history(trial_number(trial))

    def artifacts(self, trial: int | None = None) -> list[tuple[int, Artifact]]:
        """Files that trials have saved, with the number of their trial; of one trial, or of all."""
        return listed(self._results().artifacts(), None if trial is None else trial_number(trial))

    def artifact(self, trial: int, name: str, to: str | Path = ".") -> Path:
        """Copies a file that a trial has saved into the folder `to`. Raises UserInputError where there is none."""
        chosen = chosen_artifact(self._results().artifacts(), trial_number(trial), name)
        return download(file_store(self._artifacts_place, load_settings().artifacts_options), chosen, Path(to) / name)

    @property
    def _name(self) -> str:
        return self._spec.name

    @property
    def _is_maximized(self) -> bool:
        return self._spec.direction == "maximize"

    def _notes(self) -> Notes:
        return self._results().notes()

    def _annotate(self, trial: int | None, change: NoteChange, seen: str | None) -> Note:
        return self._results().annotate(trial, change, seen=seen)

    def _progress(self) -> str:
        """Its trials by state, and the best of them, in words."""
        states = Counter(str(trial.state).lower() for trial in self.trials)
        best = self._results().best_trials()
        counts = ", ".join(f"{count} {state}" for state, count in states.most_common()) or "no trials"
        words = f", {len(best)} on the front" if self._spec.objectives else ""
        if best and best[0].value is not None:
            words = f", best {best[0].value:.6g} of trial {best[0].number}"
        return f"{counts}{words}"

    def _nothing_completed(self) -> NoCompletedTrial:
        trials = self.trials
        states = Counter(str(trial.state) for trial in trials)
        ended = ", ".join(f"{count} {state}" for state, count in states.most_common()) or "it has no trials"
        reasons = [trial.attrs.get(MESSAGE) for trial in trials if trial.state is TrialState.COMPLETE]
        if reasons:
            ended = f"{ended}. The last one is {reasons[-1] or 'infeasible'}"
        what = "feasible" if reasons else "completed"
        return NoCompletedTrial(f"study {self._spec.name!r} has no {what} trial yet: {ended}")


def _present(number: float | None, what: str, study: str) -> float:
    if number is None:
        raise errors.InvariantBroken(f"the best trial of study {study} completed without a {what}")
    return number
