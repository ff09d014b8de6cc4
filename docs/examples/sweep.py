"""A search for learning rate and recipe: Optuna proposes, razorlight trains."""

import csv
from pathlib import Path

import optuna

from razorlight.cli import main

QUICK = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=4", "--data.tile_size=32"]
"""So that the example takes a minute. Leave it out to search in earnest."""


def score(trial):
    rate = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    recipe = trial.suggest_categorical("recipe", ["balanced", "compact"])
    options = [f"--model.optimizer.lr={rate}", f"--razor.recipe={recipe}", "--profiler=false"]
    logger = ["--trainer.logger.name=sweep", f"--trainer.logger.version={trial.number}"]
    if main(["fit", "--config", "quickstart.yaml", *options, *logger, *QUICK]):
        raise optuna.TrialPruned  # the line on stderr says why
    with Path(f"runs/sweep/version_{trial.number}/metrics.csv").open() as file:
        return max(float(row["val/mIoU"]) for row in csv.DictReader(file) if row["val/mIoU"])


if __name__ == "__main__":
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(score, n_trials=3)
    print(f"best mIoU {study.best_value:.3f} by {study.best_params}")
