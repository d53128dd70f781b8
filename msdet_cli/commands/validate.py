"""`msdet validate`: check a recipe without its data."""

from __future__ import annotations

from rich.console import Console

from experiments.recipes.loading import compute_recipe_id, load_recipe
from msdet_cli.console.output import print_json
from msdet_cli.model_checks import check_model
from msdet_cli.options import DatasetOpt, JsonOpt, ProfileOpt, RecipeArg, SetOpt


def validate(
    recipe: RecipeArg,
    profile: ProfileOpt = None,
    sets: SetOpt = None,
    dataset: DatasetOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Check a recipe's keys and values.

    Keys under `set` are checked against the model's MMEngine config, and the rule's options against its levels. To
    check the data: msdet data verify NAME.

    \b
    msdet validate my-recipe.yaml
    msdet validate my-recipe.yaml -p tiny
    """
    resolved = load_recipe(recipe, profile, sets or (), dataset)
    check_model(resolved)
    digest = compute_recipe_id(resolved)
    if as_json:
        print_json({"ok": True, "name": resolved.name, "profile": resolved.profile, "id": digest})
        return
    profile = f" with profile {resolved.profile}" if resolved.profile else ""
    Console(highlight=False).print(f"[green]OK[/] {resolved.name}{profile}, {digest}", soft_wrap=True)
