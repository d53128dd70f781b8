"""Commands to type next, with the options that were typed in the running one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Sequence

FLAGS = ("--dry-run", "--json", "--detach", "--force", "--retry-failed", "--grid")  # options without a value
SHORT = {"-p": "--profile"}
WHERE = ("--results-dir",)


def repeat_command(*more: str, without: Collection[str] = ()) -> str:
    """Return the running command as it was typed, less the options `without`, and with `more` words."""
    dropped = {*without, *(word.partition("=")[0] for word in more if word.startswith("--"))}
    return shlex.join(["msdet", *_parted(sys.argv[1:], dropped)[1], *more])


def next_command(*words: str, keep: Collection[str] = WHERE) -> str:
    """Return another command with the options `keep`, as far as they were typed in the running one.

    Args:
        words: The command without `msdet`, and its arguments.
        keep: Long names of options that it has as well.
    """
    return shlex.join(["msdet", *words, *_parted(sys.argv[1:], keep)[0]])


def _parted(words: Sequence[str], names: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the named options with their values, and all other words."""
    named: list[str] = []
    others: list[str] = []
    has_value_next = False
    for word in words:
        if has_value_next:
            named.append(word)
            has_value_next = False
            continue
        option, equals, _ = word.partition("=")
        if option[:2] in SHORT and not option.startswith("--"):
            equals, option = equals or option[2:], SHORT[option[:2]]
        is_named = option in names
        (named if is_named else others).append(word)
        has_value_next = is_named and not equals and option not in FLAGS
    return named, others
