"""`msdet import`: import a baseline trained by stock MMDetection."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from experiments.common.errors import UserError
from experiments.data.find import FoundDataset, find_dataset
from experiments.interop import stock_recipe
from experiments.interop.import_run import MatchedTraining, write_run
from experiments.interop.stock_run import StockRun, read_stock_run
from experiments.recipes import loading as recipes
from experiments.recipes.differences import join_differences, list_differences
from experiments.recipes.loading import load_recipe
from experiments.recipes.schema import Recipe
from experiments.runs.lookup import results_dir
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.formatting import format_metrics
from msdet_cli.model_checks import mmengine_config
from msdet_cli.options import (
    RESULTS,
    DataRootOpt,
    DatasetOpt,
    ProfileOpt,
    RecipeOpt,
    ResultsOpt,
    SeedOpt,
    SetOpt,
)


def import_(
    work_dir: Annotated[Path, typer.Argument(metavar="WORK_DIR", help="Folder that tools/train.py wrote.")],
    recipe: RecipeOpt = None,
    profile: ProfileOpt = None,
    sets: SetOpt = None,
    dataset: DatasetOpt = None,
    data_root: DataRootOpt = None,
    seed: SeedOpt = None,
    copy_checkpoint: Annotated[
        bool, typer.Option("--copy-checkpoint", help="Also copy the last weights, for msdet eval.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier import.")] = False,
    results: ResultsOpt = RESULTS,
) -> None:
    """Import a finished training by stock MMDetection as a run.

    Schedule, batch, precision and seed are read from the work folder; differences of model and data from the
    recipe are noted. No code in the folder is executed. Tables mark the run with ‡ and do not average it with
    runs of msdet.

    \b
    msdet import work_dirs/retinanet_r50_fpn_1x_coco
    msdet import work_dirs/mine --recipe retinanet-r50 --dataset cells.yaml
    """
    stock = read_stock_run(work_dir)
    claimed = load_recipe(recipe or stock_recipe.recipe_name(stock), profile, sets or (), dataset)
    made, unknown = stock_recipe.as_recipe(claimed, stock)
    chosen = _seed(stock, seed)
    data, more = _data(made, stock, data_root)
    folder = RunFolder.of(
        results_dir(results), made.name, recipes.config_hash(made, data.fingerprint if data else ""), chosen
    )
    _check_free(folder, force)
    differs = stock_recipe.differences(stock.content, mmengine_config(_placed(made, data)).to_dict())
    try:
        training = MatchedTraining(stock, made, chosen, data, [*unknown, *more], differs)
        write_run(folder, training, ["msdet", *sys.argv[1:]], _copier(stock, copy_checkpoint))
    except OSError as error:
        raise UserError(
            f"{folder.path} cannot be written: {error.strerror or error}", "--results-dir DIR"
        ) from None
    _print_result(folder, claimed, made)


def _seed(stock: StockRun, given: int | None) -> int:
    configured = stock.config.seed
    known = configured if configured is not None or not stock.logs else stock.logs[-1].seed
    if given is not None and known is not None and given != known:
        raise UserError(f"--seed: {stock.source} was trained with seed {known}, not {given}", "omit --seed")
    if given is None and known is None:
        raise UserError(f"{stock.source} has no seed", "--seed K; any unused number if it is unknown")
    return given if known is None else known  # type: ignore[return-value]  # one of them is not None


def _data(recipe: Recipe, stock: StockRun, given: Path | None) -> tuple[FoundDataset | None, list[str]]:
    """Return the data set, first from its training location, and what is unknown of it."""
    trained = next((Path(root) for root in stock.training_data("data_root") if root), None)
    if given is None and trained is not None and trained.exists():
        try:
            data, unknown = find_dataset(recipe.dataset, trained, generate=False), []
        except UserError as error:
            raise UserError(
                error.message,
                "--dataset NAME for another data set, --data-root DIR for another folder",
            ) from None
    elif given is None and recipe.dataset.generate is not None:  # generated data are not what was trained on
        return None, []
    else:
        try:
            data = find_dataset(recipe.dataset, given, generate=False)
        except UserError:
            if given is not None:
                raise
            return None, []
        unknown = [f"whether the data in {data.root} are those in {trained}"]
    stock_recipe.check_classes(stock, data)
    return data, unknown


def _copier(stock: StockRun, wanted: bool) -> Callable[[Path, Path], None] | None:
    if not wanted:
        return None
    if stock.checkpoint is None:
        raise UserError(f"{stock.source}: the last checkpoint is missing", "omit --copy-checkpoint")
    from experiments.training.stock_weights import copy_weights

    return copy_weights


def _placed(recipe: Recipe, data: FoundDataset | None) -> Recipe:
    """Return the recipe with the data set's actual root, so that its config has the classes."""
    if data is None:
        return recipe
    return recipe.model_copy(update={"dataset": recipe.dataset.model_copy(update={"root": str(data.root)})})


def _check_free(folder: RunFolder, force: bool) -> None:
    if not folder.record_file.exists():
        return
    if folder.read().imported is None:
        raise UserError(f"{folder.path} is a run of msdet, not an import", "--results-dir DIR")
    if not force:
        raise UserError(f"{folder.name} exists already", "replace it with --force")


def _print_result(folder: RunFolder, claimed: Recipe, made: Recipe) -> None:
    record, console = folder.read(), Console()
    lines = [f"{folder.path}", f"  {format_metrics(record.metrics)}"]
    other = join_differences(list_differences(made, claimed))
    if other:
        lines.append(f"  a variant of recipe {claimed.name}: {other}")
    lines += [f"  note: {note}" for note in record.notes]
    lines += [f"  unknown: {text}" for text in (record.imported or {})["unknown"]]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
