"""Commands to type next, with the options that were typed in the running one."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

FLAGS = ("--dry-run", "--json", "--detach", "--force", "--retry-failed", "--grid")  # options without a value
SHORT = {"-p": "--profile"}
WHERE = ("--results-dir",)
_PLACES = frozenset({"--results-dir", "--data-root", "--dataset", "--profile"})
_OPTION = re.compile(r"--[a-z][a-z-]*( [^ ,;()]+)?")
_ASSIGNMENT = re.compile(r"\+?[A-Za-z_][\w.]*=.*")
_VALUE = re.compile(r"[\d.+e\[\],-]*\d[\d.+e\[\],-]*|all|[a-z]+(\+[a-z]+)+")


def repeat_command(*more: str, without: Collection[str] = ()) -> str:
    """Return the running command as it was typed, less the options `without`, and with `more` words."""
    dropped = {*without, *(word.partition("=")[0] for word in more if word.startswith("--"))}
    return shlex.join(["msdet", *_parted(sys.argv[1:], dropped)[1], *more])


def make_next_command(*words: str, keep: Collection[str] = WHERE) -> str:
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
    rest = iter(words)
    for word in rest:
        option, equals, _ = word.partition("=")
        if option[:2] in SHORT and not option.startswith("--"):
            equals, option = equals or option[2:], SHORT[option[:2]]
        (named if option in names else others).append(word)
        if option in names and not equals and option not in FLAGS:
            named += itertools.islice(rest, 1)  # its value
    return named, others


def complete_hint(hint: str) -> str:
    """Return a hint with what was typed: `--option VALUE` as the whole command, another with the same places.

    Words after two spaces are a remark; a hint in prose stays as it is.
    """
    command, gap, remark = hint.partition("  ")
    try:
        words = shlex.split(command)
    except ValueError:
        return hint
    if _OPTION.fullmatch(command):
        return repeat_command(*words) + gap + remark
    if words[:1] != ["msdet"]:
        return hint
    keep = _PLACES.intersection(_options_of(words[1:])).difference(SHORT.get(word, word) for word in words)
    return command + make_next_command(keep=keep).removeprefix("msdet") + gap + remark


def _options_of(words: Sequence[str]) -> set[str]:
    """Return the long names of the options that a command takes."""
    from typer.main import get_command

    from msdet_cli.app import app

    command: Any = get_command(app)
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    return {option for param in command.params for option in param.opts}


def correct_slip(message: str) -> str | None:
    """Return the command without a common slip, where the error `message` names the word in question.

    Slips: `run X weighting.alpha=3` without --set, `--alpha 5 10` without a comma, `mine` for `mine.yaml`.
    """
    words = sys.argv[1:]
    for place, word in enumerate(words[1:], 1):
        if word not in re.split(r"['() ]", message):
            continue
        if _ASSIGNMENT.fullmatch(word) and words[place - 1] != "--set":
            corrected = [w for w in words if not _ASSIGNMENT.fullmatch(w)]
            sets = [w for w in words if _ASSIGNMENT.fullmatch(w)]
            return shlex.join(["msdet", *corrected, *(part for text in sets for part in ("--set", text))])
        if words[place - 1] != "--set" and Path(f"{word}.yaml").is_file():
            return shlex.join(["msdet", *words[:place], f"{word}.yaml", *words[place + 1 :]])
        first = next((i for i in range(place - 1, 1, -1) if words[i - 1].startswith("--")), None)
        if words[0] == "ablate" and first and all(map(_VALUE.fullmatch, words[first : place + 1])):
            last = next((i for i in range(place, len(words)) if not _VALUE.fullmatch(words[i])), len(words))
            return shlex.join(["msdet", *words[:first], ",".join(words[first:last]), *words[last:]])
    return None
