"""Commands that change a study or one of its trials, and delete a study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from highnoon.coordinator.cli.command_io import StudyName, TrialNumber, ledger
from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.shared.domain.states import RETRIABLE

if TYPE_CHECKING:
    from highnoon.shared.domain.param import SearchSpace
    from highnoon.shared.domain.trial import Params, ParamValue
    from highnoon.shared.store.study_records import StudyRecord

TrialNumbers = Annotated[
    list[int] | None, typer.Argument(help="Their numbers. Default: all that failed.", metavar="TRIAL")
]
Point = Annotated[
    list[str], typer.Argument(help="Values of the point; what it leaves open is sampled.", metavar="NAME=VALUE")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="What hn.trial_settings() has in it. May be repeated.", metavar="NAME=VALUE"),
]
Priority = Annotated[int | None, typer.Option(help="Beside other studies: 1 to 1000, 1 by default.", metavar="N")]
MaxRunning = Annotated[int | None, typer.Option(help="So many trials run at most; 0 is no limit.", metavar="N")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def pause(study: StudyName) -> None:
    """Start nothing new; running trials end by themselves.

    Example: python -m coordinator pause digits
    """
    from highnoon.shared.store import steering

    with ledger() as access:
        steering.pause(access, access.studies.get(study))
    typer.echo(f"study {study} is paused")


def resume(study: StudyName) -> None:
    """Go on with a paused study.

    Example: python -m coordinator resume digits
    """
    from highnoon.shared.store import steering

    with ledger() as access:
        steering.resume(access, access.studies.get(study))
    typer.echo(f"study {study} goes on")


def cancel(study: StudyName) -> None:
    """Give a study up: drop what waits, stop what runs.

    Example: python -m coordinator cancel digits
    """
    from highnoon.shared.store import steering

    with ledger() as access:
        steering.cancel(access, access.studies.get(study))
    typer.echo(f"study {study} is being cancelled")


def set_share(study: StudyName, priority: Priority = None, max_running: MaxRunning = None) -> None:
    """Change a study's share of the slots while it runs.

    Studies of one queue start trials in the ratio of their priorities.

    Example: python -m coordinator set digits --priority 3 --max-running 8
    """
    from highnoon.shared.store import steering

    with ledger() as access:
        record = access.studies.get(study)
        steering.set_share(access, record, priority=priority, max_running=max_running)
        spec = access.studies.get(study).spec
    most = spec.get("max_running")
    limit = "without a limit" if most is None else f"at most {most} running"
    typer.echo(f"study {study}: priority {spec.get('priority', 1)}, {limit}")


def retry(study: StudyName, numbers: TrialNumbers = None) -> None:
    """Run failed trials again, with the same parameters.

    Also trials that did not fit into memory.

    Example: python -m coordinator retry digits 3 7
    """
    from highnoon.coordinator.cli.tables import trials_wait
    from highnoon.shared.store.steering import require

    with ledger() as access:
        record = access.studies.get(study)
        count = access.studies.retry(record.id, endings=RETRIABLE, numbers=tuple(numbers or ()))
        require(access, count > 0, record, "none of its closed trials failed")
    typer.echo(f"study {study}: {trials_wait(count)} for another attempt")


def enqueue(study: StudyName, point: Point) -> None:
    """Add a trial at a point of your choice.

    Text may stand in quotes, for a choice such as "2" beside the number 2.

    Example: python -m coordinator enqueue digits units=64 optimizer=adam
    """
    from highnoon.shared.store import steering

    with ledger() as access:
        record = access.studies.get(study)
        params = point_of(point, _space_of(record))
        steering.enqueue(access, record, params)
    typer.echo(f"study {study}: one more trial, at {' '.join(point)}")


def extend_trial(study: StudyName, trial: TrialNumber, settings: Settings = None) -> None:
    """Train a trial that has ended longer, as a new trial.

    It has the same parameters and goes on from the stored checkpoint. The objective reads what --set gives by
    hn.trial_settings(); the Trainer takes epochs from there.

    Example: python -m coordinator extend-trial digits 12 --set epochs=20
    """
    from highnoon.shared.store import steering

    with ledger() as access:
        record = access.studies.get(study)
        steering.extend_trial(access, record, trial, settings_of(settings or [], _space_of(record)))
    given = f", with {' '.join(settings)}" if settings else ""
    typer.echo(f"study {study}: one more trial, which goes on from trial {trial}{given}")


def stop_trial(study: StudyName, trial: TrialNumber) -> None:
    """End one running trial, and leave the others alone.

    It ends as cancelled, with the next renewal of its lease, and is not tried again.

    Example: python -m coordinator stop-trial digits 12
    """
    from highnoon.shared.store import steering

    with ledger() as access:
        steering.stop_trial(access, access.studies.get(study), trial)
    typer.echo(f"trial {trial} of study {study} is being stopped")


def delete(study: StudyName, yes: Yes = False) -> None:
    """Delete a study that is over, also in Optuna.

    Logs stay where they are.

    Example: python -m coordinator delete digits --yes
    """
    from highnoon.shared.store import steering

    with ledger() as access:
        record = access.studies.get(study)
        steering.require(access, record.is_over, record, "only one that is over can be deleted: cancel it first")
        count = access.studies.counts(record.id).total
        if not yes and not typer.confirm(f"Delete study {study} with its {count:,} trials?"):
            raise typer.Exit(1)
        steering.delete_study(access, record)
    typer.echo(f"study {study} is deleted")


def _space_of(record: StudyRecord) -> SearchSpace | None:
    """The space that the study names; None where its objective defines it as it runs."""
    from highnoon.shared.domain.space import parse_space

    written = record.spec.get("search_space")
    return None if written is None else parse_space(written)


def point_of(written: list[str], space: SearchSpace | None) -> Params:
    """The parameters that NAME=VALUE arguments give; any name without a space. Raises InvalidInput: every mistake."""
    params: Params = {}
    problems: list[Problem] = []
    for argument in written:
        name, equals, text = argument.partition("=")
        if not equals:
            problems.append(Problem(key=argument, message="is not of the form NAME=VALUE"))
        elif name in params:
            problems.append(Problem(key=name, message="is given twice", hint="Leave one of them out."))
        elif space is None:
            params[name] = _value(text, None)
        elif name not in space:
            problems.append(Problem(key=name, message="is no parameter of this study", hint=nearest(name, space)))
        else:
            params[name] = _value(text, getattr(space[name], "choices", None))
    if problems:
        raise InvalidInput("command line", problems)
    return params


def settings_of(written: list[str], space: SearchSpace | None) -> dict[str, ParamValue]:
    """What NAME=VALUE arguments set; names of parameters as `point_of`. Raises InvalidInput with every mistake."""
    ours = [argument for argument in written if argument.partition("=")[0] in (space or {})]
    others = [argument for argument in written if argument not in ours]
    return {**point_of(ours, space or {}), **point_of(others, None)}


def _value(text: str, choices: tuple[ParamValue, ...] | None) -> ParamValue:
    """A choice by how tables show it or by its text; else a number where it is one."""
    from highnoon.shared.views.formats import param

    for choice in choices or ():
        if text == param(choice, 17) or text == param(choice):
            return choice
    for choice in choices or ():
        if text == str(choice):
            return choice
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
