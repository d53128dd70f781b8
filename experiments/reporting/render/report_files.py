"""A report as one text, or as files: which there are in each format, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.reporting.render import markdown
from experiments.reporting.render.latex import render_latex_report, render_latex_table
from experiments.reporting.render.records import render_csv
from experiments.reporting.render.text import ReportMetadata, make_file_name, make_stems
from experiments.reporting.tables.report_model import Report
from experiments.reporting.tables.sections import Section


@dataclass(frozen=True)
class ReportFiles:
    """Renders a report with the sections below its tables."""

    report: Report
    made: ReportMetadata
    sections: Sequence[Section] = ()

    def text(self, form: str) -> str:
        """Return the report as one text, with links from the working directory; only HTML holds pictures."""
        report, here = self.report, Path.cwd()
        if form == "html":
            return self._html(here)["report.html"]
        if form == "csv":
            return render_csv(report.tables)
        if form == "latex":
            return render_latex_report(report, self.made)
        claims = "\n\n".join(markdown.render_markdown_claims(report, self.made)) + "\n"
        return "\n".join([claims, *(markdown.render_markdown(table, here) for table in report.tables)])

    def files(self, forms: Sequence[str], out: Path) -> dict[str, bytes]:
        """Return the files' contents by path below `out`."""
        makers = {"md": self._markdown, "csv": self._csv, "latex": self._latex, "html": self._html}
        files = {name: text.encode() for form in forms for name, text in makers[form](out).items()}
        for picture in (picture for section in self.sections for picture in section.pictures):
            stem = f"figures/{make_file_name(picture.name)}"
            files |= {f"{stem}.png": picture.png, f"{stem}.svg": picture.svg.encode()}
        return files

    def _markdown(self, out: Path) -> dict[str, str]:
        """Return a page a table with its contexts, and `report.md`, which leads to them."""
        by_name = self.report.by_name
        tables = {f"{stem}.md": by_name[name] for name, stem in make_stems(by_name).items()}
        titles = {file: forms[0].title for file, forms in tables.items()}
        files = {"report.md": markdown.render_markdown_index(self.report, self.made, titles, self.sections)}
        for file, forms in tables.items():
            files[file] = "\n".join(markdown.render_markdown(table, out) for table in forms)
        return files

    def _csv(self, out: Path) -> dict[str, str]:
        by_name = self.report.by_name
        return {f"{stem}.csv": render_csv(by_name[name]) for name, stem in make_stems(by_name).items()}

    def _latex(self, out: Path) -> dict[str, str]:
        """Return a file a table, to be read into a paper, and `report.tex`, which reads them all."""
        named = {table.long_name: table for table in self.report.tables}
        files = {name: f"{stem}.tex" for name, stem in make_stems(named).items()}
        tables = {files[name]: render_latex_table(table) for name, table in named.items()}
        return {"report.tex": render_latex_report(self.report, self.made, self.sections, files), **tables}

    def _html(self, base: Path) -> dict[str, str]:
        from experiments.reporting.render.page import render_html_page  # alone needs Jinja2

        return {"report.html": render_html_page(self.report, self.made, base, self.sections)}
