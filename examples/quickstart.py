"""The guide's quick start on real data, in this process and without any service: python examples/quickstart.py"""

from __future__ import annotations

from digits.objective import train

import highnoon as hn

search_space = {
    "learning_rate": ("log_uniform", 1e-4, 1e-1),
    "filters": ("int", 4, 24, 4),  # step=4
    "units": ("int", 32, 128, 16),
    "dropout": ("uniform", 0.0, 0.5),
    "l2": ("log_uniform", 1e-6, 1e-2),
    "optimizer": ("categorical", ["adam", "rmsprop", "sgd"]),
    "batch_size": ("categorical", [32, 64, 128]),
}

if __name__ == "__main__":
    hpo = hn.HPOTrialManager(
        study_name="quickstart",
        n_trials=10,
        direction="minimize",  # Minimize loss
        seed=7,
    )

    best_params = hpo.optimize(objective=train, search_space=search_space)

    print(f"Best validation loss: {hpo.best_value:.4f}")
    print(f"Best parameters: {best_params}")
