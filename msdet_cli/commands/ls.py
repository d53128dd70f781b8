"""`msdet ls`: list recipes, profiles, data sets and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from experiments.common.errors import UserError, did_you_mean
from experiments.recipes import catalogue
from experiments.recipes.tables import list_ablations, load_table
from experiments.runs.lookup import find_results_dir
from msdet_cli.completion import complete_words
from msdet_cli.console.output import print_json, print_line
from msdet_cli.options import JsonOpt, argument

KINDS = {f"{kind}s": kind for kind in catalogue.FOLDERS}


def ls(
    kind: Annotated[
        str | None,
        argument("KIND", "One of recipes, profiles, datasets, tables (default: all).", complete_words(KINDS)),
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """List recipes, profiles, data sets and tables.

    Files in ./recipes take precedence over shipped ones of the same name. The tables that `msdet ablate` has
    written below the results folder are listed, too.

    \b
    msdet ls
    msdet ls recipes --json
    msdet ls tables           names for: msdet reproduce TABLE
    """
    if kind is not None and kind not in KINDS:
        raise UserError(f"'{kind}' cannot be listed; {did_you_mean(kind, KINDS)}", "msdet ls")
    chosen = [kind] if kind else list(KINDS)
    listed = {each: _pages(KINDS[each]) for each in chosen}
    if as_json:
        print_json(listed)
        return
    console = Console(highlight=False)
    width = max((len(page["name"]) for pages in listed.values() for page in pages), default=0)
    for title, pages in listed.items():
        console.print(f"[bold]{title}[/]")
        for page in pages:
            print_line(console, f"  {page['name']:<{width}}  {page['about']}")
    if "recipes" in listed:
        console.print("\nto print one: msdet show RECIPE; to copy one: msdet cp RECIPE FILE")


def _pages(kind: str) -> list[dict[str, Any]]:
    pages = catalogue.list_pages(kind)
    if kind == "table":
        pages = {**pages, **list_ablations(find_results_dir())}
    return [{"name": name, **_describe(kind, path), "path": str(path)} for name, path in pages.items()]


def _describe(kind: str, path: Path) -> dict[str, Any]:
    """Return what a page is about; of a table also its number of rows, and of rows with a recipe."""
    try:
        if kind != "table":
            return {"about": catalogue.read_header_comment(path).partition("\n")[0]}
        table = load_table(str(path))
    except UserError as error:  # one bad file does not hide the others
        return {"about": error.message}
    rows = list(table.rows())
    recipes = sum(row.recipe is not None for row in rows)
    counts = f"{len(rows)} rows, {'all' if recipes == len(rows) else recipes} with a recipe"
    return {"about": f"{table.title} ({counts})", "rows": len(rows), "recipes": recipes}
