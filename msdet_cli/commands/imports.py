"""`msdet import`: a baseline that stock MMDetection trained."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from experiments.common.config_text import flat
from experiments.common.errors import UserError
from experiments.data.find import FoundDataset, find_dataset
from experiments.interop import import_run as imported
from experiments.interop import stock_recipe
from experiments.interop.stock_run import StockRun, read_stock_run
from experiments.recipes import loading as recipes
from experiments.recipes.loading import load_recipe
from experiments.recipes.schema import Recipe
from experiments.runs.lookup import results_dir
from experiments.runs.run_folder import RunFolder
from msdet_cli.commands.show import mmengine_config
from msdet_cli.console.formatting import format_metrics
from msdet_cli.options import (
    RESULTS,
    DataRootOpt,
    DatasetOpt,
    ProfileOpt,
    ResultsOpt,
    SeedOpt,
    SetOpt,
    complete,
)


def import_(
    work_dir: Annotated[Path, typer.Argument(metavar="WORK_DIR", help="What tools/train.py wrote.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME",
            help="The recipe it corresponds to; else found by its config's name.",
            autocompletion=complete("recipe"),
        ),
    ] = None,
    profile: ProfileOpt = None,
    sets: SetOpt = None,
    dataset: DatasetOpt = None,
    data_root: DataRootOpt = None,
    seed: SeedOpt = None,
    copy_checkpoint: Annotated[
        bool, typer.Option("--copy-checkpoint", help="Copy the last weights, too, for msdet eval.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what was imported before.")] = False,
    results: ResultsOpt = RESULTS,
) -> None:
    """Take in a finished training by stock MMDetection as a run, marked as imported.

    Schedule, batch, precision and seed are read from the work folder; model and data are compared with the
    recipe's, and differences noted. Nothing in the folder is run. In tables it is marked ‡ and never averaged
    with runs of msdet.

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
    differs = stock_recipe.differences(stock.config, mmengine_config(_placed(made, data)).to_dict())
    try:
        imported.write_run(
            folder,
            made,
            stock,
            chosen,
            data,
            [*unknown, *more],
            differs,
            _command(),
            _copier(stock, copy_checkpoint),
        )
    except OSError as error:
        raise UserError(
            f"{folder.path} cannot be written: {error.strerror or error}", "another place: --results-dir DIR"
        ) from None
    _say(folder, claimed, made)


def _command() -> list[str]:
    return ["msdet", *sys.argv[1:]]


def _seed(stock: StockRun, given: int | None) -> int:
    configured = stock.get("randomness.seed")
    logged = stock.logs[-1].seed if stock.logs else None
    known = configured if isinstance(configured, int) else logged
    if given is not None and known is not None and given != known:
        raise UserError(f"--seed: {stock.source} was trained with seed {known}, not {given}", "leave it out")
    if given is None and known is None:
        raise UserError(
            f"{stock.source} does not say its seed", "say it: --seed K; any free number if unknown"
        )
    return given if known is None else known  # type: ignore[return-value]  # one of the two is known


def _data(recipe: Recipe, stock: StockRun, given: Path | None) -> tuple[FoundDataset | None, list[str]]:
    """The data set where it lay when it was trained, else where it lies now; and what is then not known of it."""
    places = flat(stock.get("train_dataloader") or {})
    trained = next((Path(v) for key, v in places.items() if key.endswith("data_root") and v), None)
    if given is None and trained is not None and trained.exists():
        try:
            data, unknown = find_dataset(recipe.dataset, trained, generate=False), []
        except UserError as error:
            raise UserError(
                error.message,
                "--dataset NAME if it is another data set, --data-root DIR if it lies elsewhere",
            ) from None
    elif given is None and recipe.dataset.generate is not None:  # what it would be is not what was trained on
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
        raise UserError(f"{stock.source}: its last checkpoint is gone", "leave out --copy-checkpoint")
    from experiments.training.stock_weights import copy_weights

    return copy_weights


def _placed(recipe: Recipe, data: FoundDataset | None) -> Recipe:
    """The recipe with its data where they were found, so that its config has their classes."""
    if data is None:
        return recipe
    return recipe.model_copy(update={"dataset": recipe.dataset.model_copy(update={"root": str(data.root)})})


def _check_free(folder: RunFolder, force: bool) -> None:
    if not folder.record_file.exists():
        return
    if folder.read().imported is None:
        raise UserError(f"{folder.path} is a run of msdet", "another place: --results-dir DIR")
    if not force:
        raise UserError(f"{folder.name} has been imported before", "--force replaces it")


def _say(folder: RunFolder, claimed: Recipe, made: Recipe) -> None:
    from experiments.reporting.tables.matching import differences

    record, console = folder.read(), Console()
    lines = [f"{folder.path}", f"  {format_metrics(record.metrics)}"]
    other = differences(made, claimed)
    if other:
        lines.append(f"  not recipe {claimed.name} but a variant of it: {other}")
    lines += [f"  note: {note}" for note in record.notes]
    lines += [f"  not known: {text}" for text in (record.imported or {})["unknown"]]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
