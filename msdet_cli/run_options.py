"""Options of the commands that train, and what follows from them: seeds, execution, plan."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from experiments.common.errors import UserError
from experiments.common.trackers import TRACKERS
from experiments.common.trackers import check as check_trackers
from experiments.launching.devices import Device, load_figures, parse_device
from experiments.launching.execution import Execution
from experiments.launching.gpus import Gpu, list_visible_gpus
from experiments.launching.plan import PlannedRun, PlanOptions, plan
from experiments.recipes.schema import AMP_DTYPES, Recipe
from experiments.recipes.tables import Row, Table
from msdet_cli.completion import complete_words
from msdet_cli.console.output import print_note
from msdet_cli.hints import repeat_command
from msdet_cli.model_checks import check_models
from msdet_cli.options import (
    RESULTS,
    DataRootOpt,
    DatasetOpt,
    JsonOpt,
    ProfileOpt,
    ResultsOpt,
    SeedOpt,
    YesOpt,
    option,
)

if TYPE_CHECKING:
    from experiments.launching.slurm.options import SlurmOptions


_execution = partial(option, rich_help_panel="Execution")
_count = partial(_execution, min=1)


@dataclass(frozen=True)
class RunOptions:
    """Options of the commands that train: `run`, `ablate` and `reproduce`."""

    profile: ProfileOpt = None
    seed: SeedOpt = None
    seeds: Annotated[
        int | None, option("--seeds COUNT", "Number of seeds: 0, 1, ..., one run each.", min=1)
    ] = None
    dataset: DatasetOpt = None
    data_root: DataRootOpt = None
    results: ResultsOpt = RESULTS
    dry_run: Annotated[bool, option("--dry-run", "Print the plan and its cost; run nothing.")] = False
    on: Annotated[
        str | None, option("--on DEVICE", "Forecast for other GPUs: h100x4 is four H100. Needs --dry-run.")
    ] = None
    retry_failed: Annotated[
        bool, option("--retry-failed", "Resume failed runs from their last checkpoint.")
    ] = False
    force: Annotated[bool, option("--force", "Delete what these runs have, and start anew.")] = False
    yes: YesOpt = False
    as_json: JsonOpt = False
    gpus: Annotated[int | None, _count("--gpus N", "GPUs of each run. Default: the recipe's.")] = None
    gpus_per_run: Annotated[
        int | None, _count("--gpus-per-run M", "GPUs of each run; --gpus then caps the total.")
    ] = None
    jobs: Annotated[int | None, _count("--jobs J", "Runs at a time. Default: one per free GPU, or 1.")] = None
    nodes: Annotated[int, _count("--nodes N", "Machines of each run.")] = 1
    rdzv: Annotated[
        str | None, _execution("--rdzv HOST:PORT", "Rendezvous: a host all machines reach, a free port.")
    ] = None
    scale_lr: Annotated[
        bool, _execution("--scale-lr", "Batch and learning rate grow with --gpus: another experiment.")
    ] = False
    amp: Annotated[
        str | None,
        _execution("--amp bf16|fp16", "Mixed precision: another experiment.", complete_words(AMP_DTYPES)),
    ] = None
    fast: Annotated[bool, _execution("--fast", "Execute faster: the same experiment, to rounding.")] = False
    track: Annotated[
        str | None,
        _execution(
            "--track NAMES", f"Log there as well: {', '.join(TRACKERS)}.", complete_words(TRACKERS, ",")
        ),
    ] = None
    detach: Annotated[bool, _execution("--detach", "Plan, then run in the background.")] = False
    slurm: Annotated[
        str | None, _execution("--slurm KEY=VALUE,...", "Submit to Slurm: partition=gpu,time=12h,mem=64G.")
    ] = None

    @property
    def chosen_seeds(self) -> list[int]:
        return list(range(self.seeds)) if self.seeds is not None else [self.seed or 0]

    @cached_property
    def device(self) -> Device | None:
        """Return what `--on` names; None without it.

        Raises:
            UserError: There are no figures for it, or the command would run something.
        """
        if self.on is None:
            return None
        if not self.dry_run:
            raise UserError("--on forecasts only: it requires --dry-run", repeat_command("--dry-run"))
        return parse_device(self.on)

    @cached_property
    def slurm_options(self) -> SlurmOptions | None:
        if self.slurm is None:
            return None
        from experiments.launching.slurm.options import parse

        return parse(self.slurm)

    @cached_property
    def execution(self) -> Execution:
        """Return how runs are executed.

        Raises:
            UserError: An option is not allowed, or two contradict each other.
        """
        if self.seed is not None and self.seeds is not None:
            raise UserError(
                "--seed and --seeds exclude each other", "--seed 3 is one seed; --seeds 3 are seeds 0, 1, 2"
            )
        trackers = [name.strip() for name in (self.track or "").split(",") if name.strip()]
        check_trackers(trackers)
        if self.amp is not None and self.amp not in AMP_DTYPES:
            raise UserError(f"--amp: '{self.amp}' is not allowed: {', '.join(AMP_DTYPES)}")
        as_typed = {
            f.name: getattr(self, f.name) for f in fields(Execution) if f.name not in ("track", "slurm")
        }
        execution = Execution(**as_typed, track=tuple(trackers))
        if self.slurm_options is not None:
            from experiments.launching.slurm.submission import resolve_execution

            execution = resolve_execution(execution, self.slurm_options)
        execution.check()
        return execution

    @cached_property
    def local_gpus(self) -> tuple[Gpu, ...]:
        """Return this machine's GPUs, or those of `--on`; none under Slurm, which has its own."""
        if self.device is not None:
            return tuple(self.device.gpus)
        return () if self.slurm is not None else tuple(list_visible_gpus())

    def recipe_of(self, table: Table, row: Row, weights: Sequence[float] = (1.0,)) -> Recipe:
        """Return the recipe of a row, as the options change it. Args: as `Table.recipe_of`."""
        return self.execution.changed(table.recipe_of(row, weights, self.profile))

    def plan(self, labelled: Iterable[tuple[str, Recipe]]) -> list[PlannedRun]:
        """Return the runs of the recipes with every seed. Args and Raises: as `plan` and `check_models`."""
        labelled = list(labelled)
        if self.data_root is not None and self.dataset is None and self.data_root.is_dir():
            _check_made_there([recipe for _, recipe in labelled], self.data_root)
        check_models(recipe for _, recipe in labelled)
        return plan(
            labelled,
            PlanOptions(
                self.chosen_seeds,
                self.results,
                self.data_root,
                self.retry_failed,
                self.force,
                generate=not self.dry_run,
                execution=self.execution,
                gpus=self.local_gpus,
                known_images=load_figures()["images"] if self.device else {},
                notify=print_note,
            ),
        )


def _check_made_there(recipes: Iterable[Recipe], root: Path) -> None:
    """Refuse a folder of other data for a set that is made there: -p tiny --data-root lacks --dataset."""
    from experiments.data.find import check_place
    from experiments.data.shapes.generator import MANIFEST
    from experiments.recipes.catalogue import list_pages, load_dataset

    made = next((recipe for recipe in recipes if recipe.dataset.generate is not None), None)
    if made is None or (root / MANIFEST).exists() or not any(root.iterdir()):
        return
    for name in list_pages("dataset"):
        with contextlib.suppress(UserError):
            spec = load_dataset(name)
            if spec.generate is None:
                check_place(spec, root)
                break
    else:
        name = "NAME"
    what = f"--data-root {root}: recipe {made.name} makes its data set '{made.dataset.name}', and this folder holds"
    raise UserError(f"{what} other files", f"--dataset {name}")


def with_run_options(*omitted: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the options of `RunOptions`, less the omitted.

    The command receives them as its keyword `options`.
    """
    names = [f.name for f in fields(RunOptions) if f.name not in omitted]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_options(**values: Any) -> None:
            options = RunOptions(**{name: values.pop(name) for name in names})
            _ = options.execution, options.device  # what contradicts is refused before anything is read
            command(**values, options=options)

        parameters = [*_parameters(command, hidden=("options",)), *_parameters(RunOptions, hidden=omitted)]
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return with_options

    return decorate


def _parameters(source: Callable[..., Any], hidden: tuple[str, ...]) -> list[inspect.Parameter]:
    """Return the parameters of a function or dataclass, annotations resolved, for Typer to read."""
    resolved = inspect.signature(source, eval_str=True).parameters.values()
    return [p.replace(kind=p.KEYWORD_ONLY) for p in resolved if p.name not in hidden]
