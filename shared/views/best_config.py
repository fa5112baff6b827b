"""The best configuration in the formats that people take away. Pure: a study's name and a trial in, text out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import yaml

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.trial import ParamValue, Trial, json_number
from highnoon.shared.views.formats import finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How a best configuration is written; `name` is the file's."""

    media_type: str
    name: str
    write: Callable[[str, Trial], str]


def as_json(study: str, best: Trial) -> str:
    """One object."""
    about = {"study": study, "trial": best.number, "value": json_number(best.value), "params": best.params}
    return json.dumps(finite(about), indent=2, ensure_ascii=False) + "\n"


def as_yaml(study: str, best: Trial) -> str:
    """As `as_json`; text that YAML would read as something else is quoted."""
    about = {"study": study, "trial": best.number, "value": best.value, "params": dict(best.params)}
    return str(yaml.safe_dump(about, sort_keys=False, allow_unicode=True))


def as_toml(study: str, best: Trial) -> str:
    """As `as_json`. TOML has no null: a parameter that is none is a comment."""
    lines = [f"study = {_toml(study)}", f"trial = {best.number}", f"value = {_toml(best.value)}", "", "[params]"]
    for name, value in best.params.items():
        key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)
        lines.append(f"# {key} is none" if value is None else f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


MODEL_OPTIONS = frozenset(
    {
        "aux_loss_weight", "block_pattern", "dropout_rate", "embedding_dim", "mamba_d_conv", "mamba_d_state",
        "mamba_expand", "max_seq_length", "num_blocks", "num_experts", "num_heads", "num_moe_experts",
        "num_reasoning_blocks", "tie_embeddings", "top_k_experts", "vocab_size",
    }
)  # fmt: skip
TRAINER_OPTIONS = frozenset(
    {
        "adam_beta1", "adam_beta2", "adam_epsilon", "batch_size", "epochs", "gradient_clip", "learning_rate",
        "max_grad_norm", "warmup_steps", "weight_decay",
    }
)  # fmt: skip
"""Options of the language model and of its training, which this layer does not import; a test compares them."""


def as_python(study: str, best: Trial) -> str:
    """A snippet to go on with: a dict; and a model made from it where all of its names are the model's options."""
    params = "".join(f"    {name!r}: {value!r},\n" for name, value in best.params.items())
    title = " ".join(study.split())
    value = f'float("{best.value}")' if best.value is not None and not math.isfinite(best.value) else repr(best.value)
    head = f"# The best of study {title}: trial {best.number}, value {value}\n"
    chosen = f"best_params = {{\n{params}}}\n"
    model = [name for name in best.params if name in MODEL_OPTIONS]
    if not model or not best.params.keys() <= MODEL_OPTIONS | TRAINER_OPTIONS:
        return head + chosen
    options = (
        "**best_params" if len(model) == len(best.params) else f"**{{name: best_params[name] for name in {model}}}"
    )
    return (
        f"{head}import highnoon as hn\n\n{chosen}\n"
        f'model = hn.create_model("highnoon-small", {options})\n'
        "trainer = hn.Trainer(model, **best_params)\n"
    )


def as_env(study: str, best: Trial) -> str:
    """Variables for a shell or a container, in capitals. Raises InvalidInput where two parameters get one name."""
    lines = [f"# trial {best.number} of study {' '.join(study.split())}"]
    written: dict[str, str] = {}
    for name, value in best.params.items():
        key = re.sub(r"[^A-Z0-9_]", "_", name.upper())
        key = f"{'_' if key[:1].isdigit() else ''}{key}"
        if (other := written.setdefault(key, name)) != name:
            hint = "The formats json, yaml, toml and python keep both names."
            raise InvalidInput.of("export", name, f"is the variable {key}, as {other} is", hint=hint)
        lines.append(f"{key}={_env(value)}")
    return "\n".join(lines) + "\n"


BEST: Mapping[str, Format] = {
    "json": Format(media_type="application/json", name="best.json", write=as_json),
    "yaml": Format(media_type="application/yaml", name="best.yaml", write=as_yaml),
    "toml": Format(media_type="application/toml", name="best.toml", write=as_toml),
    "python": Format(media_type="text/x-python", name="best.py", write=as_python),
    "env": Format(media_type="text/plain", name="best.env", write=as_env),
}
"""Formats of the best configuration."""


def front_as_json(study: str, front: Sequence[Trial], objectives: Sequence[str]) -> str:
    """One object, with each of the best trials of several objectives."""
    trials = [
        {"trial": trial.number, "values": _named(trial, objectives), "params": dict(trial.params)} for trial in front
    ]
    return json.dumps(finite({"study": study, "front": trials}), indent=2, ensure_ascii=False) + "\n"


def front_as_python(study: str, front: Sequence[Trial], objectives: Sequence[str]) -> str:
    """A list of pairs, results and parameters, to choose from."""
    lines = "".join(f"    ({_named(trial, objectives)!r}, {dict(trial.params)!r}),\n" for trial in front)
    return f"# The best of study {' '.join(study.split())}: none beats these in all objectives\nfront = [\n{lines}]\n"


FRONT: Mapping[str, Callable[[str, Sequence[Trial], Sequence[str]], str]] = {
    "json": front_as_json,
    "python": front_as_python,
}
"""Formats of the best trials of several objectives."""


def _named(trial: Trial, objectives: Sequence[str]) -> dict[str, float | str | None]:
    return {name: json_number(value) for name, value in zip(objectives, trial.values, strict=True)}


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _env(value: ParamValue) -> str:
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    if re.fullmatch(r"[A-Za-z0-9_.:/+-]*", text):
        return text
    return "'" + text.replace("'", "'\"'\"'") + "'"
