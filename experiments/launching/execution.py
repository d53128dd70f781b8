"""How runs are executed, as the options of a command say: processes, machines, trackers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from experiments.common.errors import UserError
from experiments.launching.gpus import Gpu
from experiments.recipes.loading import with_scaled_lr
from experiments.recipes.schema import Recipe
from experiments.runs.record import Launch


@dataclass(frozen=True)
class Execution:
    """The options that `run`, `ablate` and `reproduce` share.

    Attributes:
        gpus: Workers of one run; with `gpus_per_run`, the most GPUs that the whole command may use.
        gpus_per_run: Workers of one run.
        jobs: Most runs at once.
        nodes, rdzv: Machines of one run, and HOST:PORT of the one where they meet.
        scale_lr, amp: Change the recipes: see `changed`.
        fast: Execute faster, equal to rounding.
        track: Trackers.
        slurm: Hand the runs to Slurm, where the GPUs are others than this machine's.
    """

    gpus: int | None = None
    gpus_per_run: int | None = None
    jobs: int | None = None
    nodes: int = 1
    rdzv: str | None = None
    scale_lr: bool = False
    amp: Literal["bf16", "fp16"] | None = None
    fast: bool = False
    track: tuple[str, ...] = ()
    slurm: bool = False

    @property
    def workers(self) -> int | None:
        """Return the number of processes of one run on each machine, if the options name it."""
        return self.gpus_per_run or self.gpus

    def check(self) -> None:
        """Raise UserError if options contradict each other."""
        if self.nodes > 1 and self.rdzv is None and not self.slurm:
            raise UserError(
                "--nodes requires --rdzv HOST:PORT",
                f"the same command on all {self.nodes} machines, with --rdzv HOST:29400",
            )
        if self.rdzv is not None:
            host, _, port = self.rdzv.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
                raise UserError(f"--rdzv: {self.rdzv!r} is not HOST:PORT", "--rdzv node1:29400")
            if int(port) == 29500:
                raise UserError(
                    "--rdzv: port 29500 is not allowed: other programs use it by default",
                    f"--rdzv {host}:29400",
                )
            if self.nodes == 1:
                raise UserError("--rdzv requires --nodes", "--nodes 2")
        if self.gpus_per_run and self.gpus and self.gpus < self.gpus_per_run:
            raise UserError(
                f"--gpus-per-run {self.gpus_per_run} exceeds --gpus {self.gpus}, the total of all runs"
            )
        if self.scale_lr and self.workers is None:
            raise UserError(
                "--scale-lr requires --gpus: the scaled learning rate is part of the recipe",
                "--gpus 8 --scale-lr",
            )

    def changed(self, recipe: Recipe) -> Recipe:
        """Return the recipe with mixed precision and the scaled learning rate, if wanted: another experiment."""
        if self.amp is not None:
            recipe = recipe.model_copy(update={"amp": self.amp})
        if self.scale_lr and self.workers is not None:
            recipe = with_scaled_lr(recipe, self.workers * self.nodes)
        return recipe

    def most_gpus(self, gpus: Sequence[Gpu]) -> int:
        """Return how many of the machine's GPUs the whole command may use at once."""
        return min(len(gpus), self.gpus) if self.gpus_per_run and self.gpus else len(gpus)

    def launch(self, recipe: Recipe, gpus: Sequence[Gpu]) -> Launch:
        """Return the processes of one run and the images of each in a forward pass; the batch is the recipe's.

        Raises:
            UserError: The machine has fewer GPUs than wanted, or the workers cannot share the batch.
        """
        schedule, usable = recipe.schedule, self.most_gpus(gpus)
        processes = self.workers
        if processes is None:
            most = schedule.gpus if self.slurm else min(usable, schedule.gpus)
            fitting = (n for n in range(most, 0, -1) if schedule.gpus % (n * self.nodes) == 0)
            processes = next(fitting, 1)
        elif usable and processes > usable and not self.slurm:
            raise UserError(
                f"{processes} GPUs are wanted for a run, this machine has {usable} to use", "nvidia-smi -L"
            )
        return Launch(
            processes=processes,
            nodes=self.nodes,
            micro_batch=schedule.micro_batch(processes * self.nodes),
            fast=self.fast,
            track=list(self.track),
        )
