"""TensorBoard, Weights & Biases and MLflow beside the run folder, through MMEngine's visualizer back ends.

A tracker shows what the run folder keeps and is never read back: a run is the same with and without one. The
classes below differ from MMEngine's in what a resumed run needs: steps are the iterations, and the same run goes on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine import Config
from mmengine.registry import VISBACKENDS
from mmengine.visualization import MLflowVisBackend, TensorboardVisBackend, WandbVisBackend
from mmengine.visualization.vis_backend import force_init_env

from experiments.common import trackers
from experiments.runs.run_folder import RunFolder

PROJECT = "msdet"


def add(config: Config, names: Sequence[str], run: RunFolder, first_iteration: int) -> None:
    """Let a config's runner report to trackers, at the last moment: they are no part of what the run is.

    Args:
        config: The worker's; changed in place.
        names: Of `trackers.TRACKERS`.
        first_iteration: Optimizer steps done before this attempt.

    Raises:
        UserError: A tracker is not installed on this machine.
    """
    if not names:
        return
    trackers.check(names)
    place = str(run.path.resolve())
    key = hashlib.sha256(place.encode()).hexdigest()[:16]  # of every attempt at this run, and of no other run
    by_name: dict[str, dict[str, Any]] = {
        "tensorboard": dict(
            type="ResumedTensorboard", save_dir=f"{place}/tensorboard", first_iteration=first_iteration
        ),
        "wandb": dict(
            type="ResumedWandb",
            save_dir=place,
            init_kwargs=dict(
                project=PROJECT,
                name=run.name,
                group="/".join(run.name.split("/")[:-1]),  # the seeds of one recipe
                id=key,
                resume="allow",
                dir=place,
                mode=os.environ.get("WANDB_MODE", "online" if "WANDB_API_KEY" in os.environ else "offline"),
            ),
        ),
        "mlflow": dict(type="ResumedMLflow", save_dir=place, run_name=run.name, key=key),
    }
    config.visualizer.name = run.name  # MMEngine gives out the one that it has, if the name is known
    config.visualizer.vis_backends = [
        *config.visualizer.get("vis_backends", []),
        *(by_name[name] for name in dict.fromkeys(names)),
    ]
    config.default_hooks.logger.log_metric_by_epoch = False  # one axis for all: iterations


@VISBACKENDS.register_module()
class ResumedTensorboard(TensorboardVisBackend):
    """Write an event file for each attempt, which takes back what an earlier one wrote of its iterations."""

    def __init__(self, save_dir: str, first_iteration: int = 0) -> None:
        super().__init__(save_dir)
        self._purge_step = first_iteration + 1 if first_iteration else None

    def _init_env(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._tensorboard = SummaryWriter(self._save_dir, purge_step=self._purge_step)

    @force_init_env
    def add_scalars(self, *args: Any, **kwargs: Any) -> None:
        super().add_scalars(*args, **kwargs)
        self._tensorboard.flush()  # or a worker that is killed loses two minutes, checkpoints among them


@VISBACKENDS.register_module()
class ResumedWandb(WandbVisBackend):
    """Send all attempts to one W&B run, with the iteration as axis; send no code."""

    def _init_env(self) -> None:
        super()._init_env()
        self._wandb.define_metric("iteration")
        self._wandb.define_metric("*", step_metric="iteration")

    @force_init_env
    def add_config(self, config: Config, **kwargs: Any) -> None:
        self._wandb.config.update(config.to_dict(), allow_val_change=True)

    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, *_: Any, **kwargs: Any) -> None:
        self._wandb.log({**scalar_dict, "iteration": step})

    def close(self) -> None:
        if hasattr(self, "_wandb"):
            self._wandb.finish()


@VISBACKENDS.register_module()
class ResumedMLflow(MLflowVisBackend):
    """Send all attempts to one MLflow run, found by its tag; the config is an artifact, for it may change."""

    def __init__(self, save_dir: str, run_name: str, key: str) -> None:
        # not in the config, which the log has: it may hold a password
        server = os.environ.get("MLFLOW_TRACKING_URI")
        own = f"sqlite:///{Path(save_dir) / 'mlflow.db'}"
        super().__init__(save_dir, exp_name=PROJECT, run_name=run_name, tracking_uri=server or own)
        self._key, self._is_local = key, server is None

    def _init_env(self) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_tracking_uri(self._tracking_uri)
        if self._is_local and mlflow.get_experiment_by_name(self._exp_name) is None:
            # its own default is the working directory
            mlflow.create_experiment(self._exp_name, (Path(self._save_dir) / "mlflow").as_uri())
        mlflow.set_experiment(self._exp_name)
        found = mlflow.search_runs(filter_string=f"tags.msdet = '{self._key}'", output_format="list")
        if found:
            mlflow.start_run(run_id=found[0].info.run_id)
        else:
            mlflow.start_run(run_name=self._run_name, tags={"msdet": self._key})

    @force_init_env
    def add_config(self, config: Config, **kwargs: Any) -> None:
        self._mlflow.log_text(config.pretty_text, "config.py")

    def close(self) -> None:
        if hasattr(self, "_mlflow"):
            self._mlflow.end_run()
