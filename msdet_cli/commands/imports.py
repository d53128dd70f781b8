"""`msdet import`: import a baseline trained by stock MMDetection."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from experiments.common.errors import UserError
from experiments.common.files import refusing
from experiments.data.find import FoundDataset, find_dataset
from experiments.interop import stock_recipe
from experiments.interop.import_run import write_run
from experiments.interop.stock_run import StockRun, read_stock_run
from experiments.recipes.differences import join_differences, list_differences
from experiments.recipes.loading import compute_config_hash, load_recipe
from experiments.recipes.schema import Recipe
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.formatting import format_metrics
from msdet_cli.model_checks import build_mmengine_config
from msdet_cli.options import (
    RESULTS,
    DataRootOpt,
    DatasetOpt,
    ProfileOpt,
    RecipeOpt,
    ResultsOpt,
    SeedOpt,
    SetOpt,
    argument,
    option,
)


def import_(
    work_dir: Annotated[Path, argument("WORK_DIR", "Folder that tools/train.py wrote.")],
    recipe: RecipeOpt = None,
    profile: ProfileOpt = None,
    sets: SetOpt = None,
    dataset: DatasetOpt = None,
    data_root: DataRootOpt = None,
    seed: SeedOpt = None,
    copy_checkpoint: Annotated[
        bool, option("--copy-checkpoint", "Also copy the last weights, for msdet eval.")
    ] = False,
    force: Annotated[bool, option("--force", "Replace an earlier import.")] = False,
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
    claimed = load_recipe(recipe or stock_recipe.find_recipe_name(stock), profile, sets or (), dataset)
    made, unknown = stock_recipe.match_recipe(claimed, stock)
    chosen = _choose_seed(stock, seed)
    data, more = _find_data(made, stock, data_root)
    digest = compute_config_hash(made, data.fingerprint if data else "")
    folder = RunFolder.of(results, made.name, digest, chosen)
    if folder.record_file.exists() and folder.read().imported is None:
        raise UserError(f"{folder.path} is a run of msdet, not an import", "--results-dir DIR")
    if folder.record_file.exists() and not force:
        raise UserError(f"{folder.name} exists already", "replace it with --force")
    if copy_checkpoint and stock.checkpoint is None:
        raise UserError(f"{stock.source}: the last checkpoint is missing", "omit --copy-checkpoint")
    copy_weights: Callable[[Path, Path], None] | None = None
    if copy_checkpoint:
        from experiments.training.engine.checkpoints import copy_weights
    placed = made.dataset if data is None else made.dataset.model_copy(update={"root": str(data.root)})
    config = build_mmengine_config(made.model_copy(update={"dataset": placed}))  # with the data's classes
    differs = stock_recipe.list_differences(stock.content, config.to_dict())
    with refusing(f"{folder.path} cannot be written", "--results-dir DIR"):
        command = ["msdet", *sys.argv[1:]]
        record = write_run(
            folder, stock, made, chosen, data, [*unknown, *more], differs, command, copy_weights
        )
    other = join_differences(list_differences(made, claimed))
    print(f"{folder.path}\n  {format_metrics(record.metrics)}")
    if other:
        print(f"  a variant of recipe {claimed.name}: {other}")
    for note in record.notes:
        print(f"  note: {note}")
    for text in (record.imported or {})["unknown"]:
        print(f"  unknown: {text}")


def _choose_seed(stock: StockRun, given: int | None) -> int:
    configured = stock.config.seed
    known = configured if configured is not None or not stock.logs else stock.logs[-1].seed
    if given is not None and known is not None and given != known:
        raise UserError(f"--seed: {stock.source} was trained with seed {known}, not {given}", "omit --seed")
    if given is None and known is None:
        raise UserError(f"{stock.source} has no seed", "--seed K; any unused number if it is unknown")
    return given if known is None else known  # type: ignore[return-value]  # one of them is not None


def _find_data(recipe: Recipe, stock: StockRun, given: Path | None) -> tuple[FoundDataset | None, list[str]]:
    """Return the data set, first from its training location, and what is unknown of it."""
    trained = next((Path(str(root)) for root in stock.training_data("data_root") if root), None)
    if given is None and trained is not None and trained.exists():
        try:
            data, unknown = find_dataset(recipe.dataset, trained, generate=False), []
        except UserError as error:
            raise UserError(
                error.message, "--dataset NAME for another data set, --data-root DIR for another folder"
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
