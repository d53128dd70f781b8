"""The report as files: which there are in each format, and what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from experiments.common.errors import UserError
from experiments.common.files import replacing

if TYPE_CHECKING:
    from experiments.reporting import Report
    from experiments.reporting.render import ReportMetadata
    from experiments.reporting.tables.sections import Section

WRITTEN = ("md", "csv", "latex", "html")  # formats that can be files


def whole(report: Report, made: ReportMetadata, form: str, sections: Sequence[Section] = ()) -> str:
    """Return the report as one text, with links from the working directory."""
    from experiments.reporting import render

    if form == "html":
        from experiments.reporting.render.page import html_page

        return html_page(report, made, Path.cwd(), sections)
    if form == "csv":
        return render.csv_text(report.tables, report.other)
    if form == "latex":
        return render.latex_report(report, made)
    standing = render.no_results_message(report, made.folders)
    parts = [] if standing else ["\n\n".join(render.markdown_claims(report)) + "\n"]
    parts += [render.markdown(table, Path.cwd()) for table in report.tables]
    parts += [render.markdown_other(report.other, Path.cwd())] if report.other else []
    parts += [render.escaped(standing) + "\n"] if standing else []
    parts += [text + "\n" for text in render.markdown_problems(report)]
    return "\n".join(parts)


def files_of(
    report: Report, made: ReportMetadata, forms: Sequence[str], out: Path, sections: Sequence[Section]
) -> dict[str, bytes]:
    """Return the files' contents by path below `out`."""
    from experiments.reporting import render

    makers = {"md": _markdown, "csv": _csv, "latex": _latex, "html": _html}
    files: dict[str, bytes] = {}
    for form in forms:
        texts = makers[form](report, made, out, sections)
        files |= {name: text.encode() for name, text in texts.items()}
    for section in sections if set(forms) != {"csv"} else ():
        for picture in section.pictures:
            stem = render.file_name(picture.name)
            files |= {f"figures/{stem}.png": picture.png, f"figures/{stem}.svg": picture.svg.encode()}
    return files


def write_all(files: Mapping[str, bytes], out: Path, on_stderr: bool = False) -> None:
    """Write files, each at once or not at all, and print their paths.

    Raises:
        UserError: The folder cannot be written.
    """
    console = Console(stderr=on_stderr)
    try:
        for name, content in files.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, "wb") as stream:
                stream.write(content)
            console.print(Text(str(path)), soft_wrap=True)
    except OSError as error:
        raise UserError(
            f"--out: {out} cannot be written: {error.strerror or error}", "name another folder"
        ) from None


def _markdown(report: Report, made: ReportMetadata, out: Path, sections: Sequence[Section]) -> dict[str, str]:
    """Return a page a table with its contexts, `other-runs`, and `report.md`, which leads to them."""
    from experiments.reporting import render

    stems = render.stems(report.by_name)
    pages, titles = {}, {}
    for name, forms in report.by_name.items():
        file = f"{stems[name]}.md"
        pages[file] = "\n".join(render.markdown(table, out) for table in forms)
        titles[file] = forms[0].title
    if report.other:
        from experiments.reporting.tables.report_views import OTHER_TITLE

        pages["other-runs.md"] = render.markdown_other(report.other, out)
        titles["other-runs.md"] = OTHER_TITLE
    return {"report.md": render.markdown_index(report, made, titles, sections), **pages}


def _csv(report: Report, made: ReportMetadata, out: Path, sections: Sequence[Section]) -> dict[str, str]:
    from experiments.reporting import render

    stems = render.stems(report.by_name)
    texts = {f"{stems[name]}.csv": render.csv_text(forms) for name, forms in report.by_name.items()}
    return texts | ({"other-runs.csv": render.csv_text([], report.other)} if report.other else {})


def _latex(report: Report, made: ReportMetadata, out: Path, sections: Sequence[Section]) -> dict[str, str]:
    """Return a file a table, to be read into a paper, and `report.tex`, which reads them all."""
    from experiments.reporting import render

    named = {render.long_name(table): table for table in report.tables}
    files = {name: f"{stem}.tex" for name, stem in render.stems(named).items()}
    tables = {files[name]: render.latex_table(table) for name, table in named.items()}
    return {"report.tex": render.latex_report(report, made, sections, files), **tables}


def _html(report: Report, made: ReportMetadata, out: Path, sections: Sequence[Section]) -> dict[str, str]:
    from experiments.reporting.render.page import html_page

    return {"report.html": html_page(report, made, out, sections)}
