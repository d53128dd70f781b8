"""Fill the screens of README.md and docs/ with real output: `python docs/make_screens.py FOLDER`.

A screen is a block of text below a comment that names its command:

    <!-- screen: msdet report table1 -->
    ```text
    ...
    ```

The commands are run in FOLDER, in the order of SETUP and then of the pages. Trainings that FOLDER has finished are
not run again. `lines=N` after a bar keeps the first N lines: `<!-- screen: msdet report | lines=12 -->`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
COLUMNS = 99  # what fits a page of lines of at most 100 characters
SETUP = (
    "msdet run retinanet-r50 retinanet-r50-rlo -p tiny --jobs 2",
    "msdet ablate --alpha 5,10,20 -p tiny --jobs 2",
)
SCREEN = re.compile(
    r"<!-- screen: (?P<command>[^|\n]+?)(?: \| lines=(?P<lines>\d+))? -->\n```text\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def run(command: str, folder: Path) -> str:
    """Return what a command prints on its standard output; its exit code must be 0."""
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    arguments = [str(Path(sys.executable).parent / "msdet"), *shlex.split(command)[1:]]
    done = subprocess.run(
        arguments, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    lines = [line.rstrip() for line in done.stdout.strip("\n").splitlines()]
    return "\n".join(part for line in lines for part in fold(line))


def fold(line: str) -> list[str]:
    """Return a line in parts that a page has room for; a terminal folds it, too."""
    return textwrap.wrap(line, COLUMNS, subsequent_indent="  ", break_on_hyphens=False) or [""]


def fill(page: Path, folder: Path) -> None:
    """Replace the text of each screen of a page by what its command prints now."""

    def screen(found: re.Match[str]) -> str:
        lines = run(found["command"], folder).splitlines()
        shown = "\n".join(lines[: int(found["lines"])] if found["lines"] else lines)
        return found[0].replace(f"```text\n{found['text']}", f"```text\n{shown}\n")

    page.write_text(SCREEN.sub(screen, page.read_text("utf-8")), "utf-8")


def main() -> None:
    """Run the commands of SETUP, then fill every page."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for command in SETUP:
        print(f"$ {command}", file=sys.stderr)
        run(command, folder)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        fill(page, folder)


if __name__ == "__main__":
    main()
