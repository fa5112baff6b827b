"""partial_fit: an estimator of scikit-learn trained in epochs, so that its study can watch and prune it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from highnoon.callbacks.metric_reports import MetricReporter
from highnoon.current_trial import trial_seed


def partial_fit(
    estimator: Any,
    x: Any,
    y: Any,
    *,
    validation: tuple[Any, Any],
    epochs: int,
    batch_size: int | None = None,
    scoring: str | Callable[..., float] | None = None,
    seed: int | None = None,
) -> float:
    """Trains by the estimator's own `partial_fit`, all of `x` in each epoch; reports each score, returns the last.

    The score is the estimator's own on `validation`, a pair of x and y; `scoring` is another one, as scikit-learn
    takes it. Scores are better when higher: the study's direction is "maximize". Batches are shuffled, by the trial's
    own seed unless another is given. Raises TrialPruned when the study's pruner ends the trial.
    """
    import numpy as np
    from sklearn.base import is_classifier
    from sklearn.metrics import check_scoring
    from sklearn.utils import gen_batches, shuffle

    reporter = MetricReporter("partial_fit()", "score")
    score = check_scoring(estimator, scoring)
    classes = {"classes": np.unique(y)} if is_classifier(estimator) else {}
    random = np.random.RandomState(trial_seed() if seed is None else seed)
    last = float("nan")
    for epoch in range(epochs):
        features, targets = shuffle(x, y, random_state=random)
        for batch in gen_batches(len(targets), batch_size or len(targets)):
            estimator.partial_fit(features[batch], targets[batch], **classes)
            classes = {}
        last = float(score(estimator, *validation))
        reporter.report({"score": last}, epoch)
    return last
