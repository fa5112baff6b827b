"""Writes the pages of docs/ that are made from the code: study-file.md, settings.md and python-api.md.

`make docs` runs it; a test compares the pages with what it would write, so that a key without a meaning, a new default or
a changed signature cannot be forgotten. What a key of a study means for people is written here, everything else is in the models.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from api_page import python_api
from model_tables import cells, one_line, table

from highnoon.shared.domain.pruner_spec import PrunerSpec
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.runtime.secret_files import PASSWORD_OF, WHOLE_VALUE_OF
from highnoon.shared.runtime.settings import SECRETS, Settings, load_settings

DOCS = Path(__file__).parent

STUDY_KEYS: Mapping[str, str] = {
    "name": "What the study is called, in paths, addresses and commands. A name that exists is joined.",
    "direction": "Which values are better.",
    "n_trials": "Trials in all, also when the study is joined: 30 on a study of 20 adds 10.",
    "objective": '`"path/file.py:function"` or `"package.module:function"`; see [where code comes from](code.md).',
    "sampler": "How points are proposed: a name, a [class](search.md#a-sampler-or-pruner-of-your-own), or a table of either and [options](#samplers).",
    "pruner": "What ends bad trials early: a name, a [class](search.md#a-sampler-or-pruner-of-your-own), or a table of either and [options](#pruners).",
    "objectives": "Several, by name, each `minimize` or `maximize`; see [search](search.md#several-objectives). Without it there is "
    "one, with the key `direction`.",
    "prune_on": "Which of several objectives is reported, and pruned by. Without it none of their trials is pruned.",
    "constraints": 'Bounds on what trials return or log, such as `{latency_ms = "<= 20"}`; see '
    "[search](search.md#constraints-on-results).",
    "search_space": "The parameters; see [below](#search-space). Without it the objective takes a `trial` and suggests them.",
    "param_constraints": "Conditions that every point keeps, such as `width % heads == 0`; others are never run.",
    "seed": "Repeats the same proposals. Without it one is drawn, and kept with the study: once a trial has begun it stays.",
    "resources": "Which workers take its trials. Submitted again with another one, the study goes on there; what was sent may still run where it was.",
    "priority": "Its share of the slots: studies of one queue start trials in the ratio of their priorities. `set` changes it, and a later "
    "submission that leaves it out keeps that.",
    "max_running": "So many of its trials run at a time, at most. `set` changes it, as it does `priority`; 0 is no limit. The next one is "
    "sent when one has ended, and waits behind what is queued: up to two seconds of the other studies' work.",
    "isolation": "How a trial is started: forked from warm imports, as a new program, or as a thread (nothing protects it).",
    "notify": 'What is [posted](operations.md#notifications) where: `{url = "https://...", on = ["finished", "failed", "best"]}`.',
    "environment": 'Variables for its trials, such as `{OMP_NUM_THREADS = "1"}`; no secrets. See [code](code.md#what-a-trial-finds).',
    "timeout": "The study ends after so many seconds; running trials end by themselves.",
    "trial_timeout": "A trial that runs longer is ended, as failed.",
    "stall_timeout": "A trial that neither reports nor prints for so long is ended, as failed.",
    "target_value": "The study ends once a trial has reached this value. On a cluster, trials that are added afterwards run until one of "
    "them has.",
    "max_failures_in_a_row": "The study ends after so many failed, timed-out or lost trials one after another; 0 is never. Without it "
    "5 failures before the first success end it.",
    "early_stop": "The study ends after `patience` trials, 1 to 10,000, without a better value.",
    "warm_start": "Studies whose trials of the same parameters inform the sampler, without counting; see [search](search.md).",
    "keep_checkpoints": "So many trials, the best ones, keep their last checkpoint, to [train longer](artifacts.md#train-longer).",
    "keep_best": "Only so many trials, the best ones, keep their [artifacts](artifacts.md). Without it all do.",
    "max_attempts": "How often a trial is tried when its process or node is lost.",
    "repeats": "How often each point is run, with a seed each; its value is the [mean](search.md#repeats).",
    "retry_errors": "How often a trial is tried again whose objective raised.",
    "param_budget": "The model size that counts as 1 in the [efficiency score](efficiency.md). Without it only the loss counts.",
    "lambda_efficiency": "How much size weighs in that score.",
    "param_budget_hard": "Larger models end before they train.",
    "memory_warning_pct": "The share of the memory limit at which the [guard](memory.md) begins to warn, as a fraction.",
    "memory_grace_steps": "Checks above that share before the guard ends a trial.",
    "prefetch_buffer_size": "For `dataset.prefetch` of trials that use the guard.",
    "trial_memory_limit": 'What a trial may hold: bytes, or `"2 GB"`, `"512MB"`, `"1.5 GiB"`. Without it, its slot\'s share.',
    "admission": "Whether a node starts a trial for every free slot, or only when its predicted memory fits.",
    "code_dir": "Where relative paths and imports start from, relative to the study file.",
}
_WRITTEN_BY_SUBMIT = {"bundle", "code", "git"}


def main() -> None:
    """Writes the pages that have changed."""
    for name, text in pages().items():
        path = DOCS / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote docs/{name}")


def pages() -> dict[str, str]:
    """Each page by its file's name."""
    return {"study-file.md": study_file(), "settings.md": settings(), "python-api.md": python_api()}


def study_file() -> str:
    """Every key of a study, with type, limits and default."""
    keys = [name for name in StudySpec.model_fields if name not in _WRITTEN_BY_SUBMIT]
    rows = [[f"`{key}`", *cells(StudySpec.model_fields[key]), STUDY_KEYS[key]] for key in keys]
    return _STUDY_FILE.format(
        keys=table(["Key", "Is", "Default", "Means"], rows),
        samplers="\n\n".join(_strategies(SamplerSpec)),
        pruners="\n\n".join(_strategies(PrunerSpec)),
    )


def setting_meanings() -> dict[str, str]:
    """The texts below the fields of Settings. Read here, since to read them takes longer than to import the rest."""
    (described,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(described, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in itertools.pairwise(described.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def settings() -> str:
    """Every setting, with type, limits and default."""
    defaults = {row.name: row.value.removesuffix(".0") for row in load_settings({}).describe()}
    defaults |= {"home": ".highnoon", "preload": "tensorflow,keras"}
    meanings, rows = setting_meanings(), []
    for name, field in Settings.model_fields.items():
        kind = cells(field, name)[0] + (", secret" if name in SECRETS else "")
        shown = defaults[name] if defaults[name] == "not set" else f"`{defaults[name]}`"
        rows.append([f"`HIGHNOON_{name.upper()}`", kind, shown, one_line(meanings[name])])
    files = [[f"`{variable}`", stands_for] for variable, stands_for in _secret_files()]
    return _SETTINGS.format(
        settings=table(["Variable", "Is", "Default", "Means"], rows),
        files=table(["Variable", "Stands for"], files),
    )


def _strategies(spec: type[SamplerSpec] | type[PrunerSpec]) -> Iterator[str]:
    for name, options in spec.kinds.items():
        about = one_line(options.__doc__ or "")
        rows = [[f"`{key}`", *cells(field)] for key, field in options.model_fields.items()]
        options_table = "\n\n" + table(["Option", "Is", "Default"], rows) if rows else ""
        yield f"**`{name}`**: {about}{options_table}"


def _secret_files() -> Iterator[tuple[str, str]]:
    for variable, address in PASSWORD_OF.items():
        yield variable, f"the password in `{address}`"
    for variable, name in WHOLE_VALUE_OF.items():
        yield variable, f"`{name}`"


_STUDY_FILE = """\
<!-- Made by docs/generate.py from the models: `make docs` writes it again. -->
# The study file

A study is a file in TOML, JSON or YAML beside the code of its objective. The same keys go into `POST /api/hpo/studies`
and, by and large, into `HPOTrialManager` (there `name` is `study_name`). Every mistake is reported at once, with its key,
its value and the nearest valid choice. TOML has no null: a key that is to have its default is left out.

```toml
name = "digits"
objective = "train.py:objective"
n_trials = 50
sampler = {{name = "tpe", n_startup_trials = 20}}
trial_timeout = 3600

[search_space]
learning_rate = ["log_uniform", 1e-5, 1e-1]
layers = ["int", 2, 12]
units = ["int", 32, 512, 32]
dropout = ["uniform", 0.0, 0.5]
optimizer = ["categorical", ["adam", "sgd"]]
"model.heads" = ["categorical", [4, 8]]
```

## Keys

{keys}

## Search space

A study without one leaves it to its objective, which then takes a `trial` and
[suggests parameters as in Optuna](from-optuna.md#take-the-objective-as-it-is). A parameter is a line as below, or a table,
which can have [conditions](search-spaces.md) too.

| Line | Draws |
| --- | --- |
| `["uniform", low, high]` | a number, evenly; with a fourth value in steps of it |
| `["log_uniform", low, high]` | a number, evenly on a logarithmic scale; low is above 0 |
| `["int", low, high]` | a whole number; with a fourth value in steps of it |
| `["int_log", low, high]` | a whole number on a logarithmic scale |
| `["categorical", [a, b, c]]` | one of these: texts, numbers, true, false or (not in TOML) null |

Both bounds are possible values. A high that no step reaches is never tried, and a warning names the last value that is.
A name with a dot needs quotes in TOML. A constant is a categorical with one choice.

## Samplers

{samplers}

## Pruners

{pruners}
"""

_SETTINGS = """\
<!-- Made by docs/generate.py from the models: `make docs` writes it again. -->
# Settings

Environment variables, read once when a process starts. An empty variable is an unset one, but for
`HIGHNOON_PRELOAD`, where it means that nothing is imported. `HIGHNOON_DB_URL` is another name of
`HIGHNOON_DATABASE_URL`. `python -m coordinator doctor` shows what is in force and where it comes from, with secrets
masked. `HIGHNOON_REAP_S` and `HIGHNOON_TELL_GRACE_S` have no effect any more, and are accepted where they are still
set. The dashboard has [variables of its own](dashboard.md#who-is-let-in).

{settings}

## Secrets in files

Each names a file that holds a secret, for Compose, Kubernetes and systemd. The first two hold the password of an address
that is written without one. A file that cannot be read or is empty is a mistake like any other.

{files}
"""

if __name__ == "__main__":
    main()
