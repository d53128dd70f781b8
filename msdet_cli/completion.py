"""What the shell completes: names of pages and runs, keys of --set, and fixed words."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import typer

Completion = Callable[[str], list[str]]


def complete(kind: str) -> Completion:
    """Return a shell completion with the names of one kind: recipe, profile or dataset."""

    def matching(incomplete: str) -> list[str]:
        from experiments.recipes.catalogue import list_pages

        return [name for name in list_pages(kind) if name.startswith(incomplete)]

    return matching


def complete_words(words: Iterable[str], separator: str = "") -> Completion:
    """Return a shell completion with fixed words; after `separator` another may follow."""

    def matching(incomplete: str) -> list[str]:
        before, _, last = incomplete.rpartition(separator) if separator else ("", "", incomplete)
        return [f"{before}{separator if before else ''}{w}" for w in words if w.startswith(last)]

    return matching


def complete_runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a run in the results folder."""
    from experiments.runs.lookup import find_results_dir, iterate

    return [
        r.name for r in iterate(find_results_dir(ctx.params.get("results"))) if r.name.startswith(incomplete)
    ]


def complete_tables(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a table, or of an ablation in a results folder."""
    from experiments.recipes.tables import list_ablations, list_tables
    from experiments.runs.lookup import find_results_dir

    typed = ctx.params.get("results")  # `report` takes several
    places = typed if isinstance(typed, (list, tuple)) and typed else [typed or None]
    names = [*list_tables(), *(name for place in places for name in list_ablations(find_results_dir(place)))]
    return [name for name in names if name.startswith(incomplete)]


def complete_settings(incomplete: str) -> list[str]:
    """Complete the key of `--set KEY=VALUE`, and the value of the few keys whose values are words."""
    from experiments.recipes.overrides import SECTIONS, list_dotted_keys
    from experiments.recipes.schema import AMP_DTYPES, WHERE
    from experiments.weighting.options import OPTIONS

    key, equals, _ = incomplete.partition("=")
    words = {"weighting.rule": OPTIONS, "weighting.where": WHERE, "amp": AMP_DTYPES}.get(key, ())
    keys = [f"{name}=" for name in list_dotted_keys().values() if name not in SECTIONS]
    choices = [f"{key}={word}" for word in words] if equals else keys
    return [choice for choice in choices if choice.startswith(incomplete)]
