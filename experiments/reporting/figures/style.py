"""The style of all figures: sizes, colours, markers, names that never collide, reproducible files."""

from __future__ import annotations

import functools
import io
import itertools
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from experiments.reporting.tables.sections import Picture

COLUMN_IN = 3.4  # width of a figure in one column of a paper, in inches
LABEL_IN = 1.25  # of it, at most, names of rows
MAX_LABEL_LINES = 2  # of such a name
DPI = 220
FONT, TEXT_PT, LABEL_PT, NOTE_PT = "DejaVu Sans", 7.5, 7.0, 6.5  # the font comes with matplotlib
LINE_SPACING = 1.25

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/): told apart with every common colour vision.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, RED, PINK = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, PALE = "#6E6E6E", "#E4E4E4"


@dataclass(frozen=True)
class Look:
    """One series: its dash (as matplotlib has it) and marker tell it apart where colours do not print.

    Attributes:
        fill: For areas, where they are not to have the lines' colour.
    """

    colour: str
    dash: str | tuple[int, tuple[float, ...]]
    marker: str = ""
    fill: str = ""

    @property
    def area(self) -> str:
        return self.fill or self.colour


# The order of the paper's Fig 1, blue, green, red, yellow, pink = finest to coarsest; orange stands for
# yellow, which vanishes on paper.
_LOOKS = (
    Look(BLUE, "-", "o"),
    Look(GREEN, (0, (5, 1.5)), "s"),
    Look(RED, (0, (5, 1.5, 1, 1.5)), "^"),
    Look(ORANGE, (0, (1.2, 1.2)), "D"),
    Look(PINK, (0, (2.5, 1)), "v"),
    Look(BLACK, (0, (8, 2)), "x"),
    Look(GREY, (0, (3, 1, 1, 1, 1, 1)), "+"),
)
# Areas of four different lightnesses, so that a strip of them reads in grey, too.
_ACTIONS = {
    "variance": Look(BLACK, "-", "o"),
    "smallest": Look(BLUE, (0, (5, 1.5)), "s"),
    "largest": Look(ORANGE, (0, (1.2, 1.2)), "^"),
    "uniform": Look("#8C8C8C", (0, (5, 1.5, 1, 1.5)), "D", "#DCDCDC"),
}
_OTHER_ACTIONS = tuple(Look(colour, "-", "v") for colour in (RED, SKY, GREEN, PINK, YELLOW))

SETTINGS = {
    "font.family": FONT,
    "font.size": TEXT_PT,
    "axes.titlesize": TEXT_PT,
    "axes.labelsize": TEXT_PT,
    "xtick.labelsize": LABEL_PT,
    "ytick.labelsize": LABEL_PT,
    "legend.fontsize": LABEL_PT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 3.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.0,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.2,
    "grid.linewidth": 0.4,
    "grid.color": PALE,
    "axes.axisbelow": True,
    "text.parse_math": False,  # a `$` in the name of somebody's data set is a `$`
    "svg.hashsalt": "msdet",  # ids that are the same in each drawing
    "savefig.facecolor": "white",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Apply the project's style within the context, or the function that it decorates."""
    plain = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    with matplotlib.rc_context({**plain, **SETTINGS}), warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes: nothing that a user must read a warning of.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def make_figure(height_in: float, width_in: float = COLUMN_IN, layout: str = "constrained") -> Figure:
    """Return an empty figure that lays itself out, without pyplot's state; call it within `drawing`.

    Args:
        layout: Matplotlib's engine; `compressed` for images, whose shape is fixed.
    """
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout=layout)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, hspace=0.03, wspace=0.03)
    FigureCanvasAgg(figure)
    return figure


@drawing()
def render_picture(figure: Figure, name: str, caption: str, alt: str) -> Picture:
    """Return the figure as PNG and self-contained SVG; the same bytes each time."""
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    figure.set_layout_engine("none")  # it has its layout by now
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(svg, format="svg", dpi=DPI, metadata=nothing)
    text = svg.getvalue()
    return Picture(name, caption, alt, png.getvalue(), text[text.index("<svg") :])  # no DOCTYPE, no address


def fold(text: str, width_in: float, size_pt: float = LABEL_PT) -> list[str]:
    """Return the text in lines no wider than a width, broken between words where it can be."""
    chars = max(len(text), 1)
    while True:
        lines = textwrap.wrap(text, chars) or [""]
        widest = max(measure_text_width_in(line, size_pt) for line in lines)
        if widest <= width_in or chars == 1:
            return lines
        chars = min(chars - 1, max(1, round(chars * width_in / widest)))


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a figure from the top down; long names are numbered, with a key below."""
    folded = {name: fold(name, LABEL_IN) for name in names}
    long = [name for name, lines in folded.items() if len(lines) > MAX_LABEL_LINES]
    numbers = {name: f"[{number}]" for number, name in enumerate(long, start=1)}
    axes.set_yticks(range(len(names)), [numbers.get(name) or "\n".join(folded[name]) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, pad=6)
    if long:
        room = axes.figure.get_figwidth() - 0.1
        lines = [line for name in long for line in fold(f"{numbers[name]} {name}", room, NOTE_PT)]
        key = "\n".join(lines)
        text = axes.figure.supxlabel(key, x=0.02, ha="left", fontsize=NOTE_PT, linespacing=LINE_SPACING)
        _grow(axes.figure, text)


def add_legend(figure: Figure, handles: Sequence[Any] = (), loc: str = "outside upper center") -> None:
    """Put a legend outside of the axes, in as many columns as its names leave; the figure grows by it.

    Args:
        handles: By default what the axes' labels name, each label once.
    """
    found = [each for axes in figure.axes for each in axes.get_legend_handles_labels()[0]]
    by_name = {str(handle.get_label()): handle for handle in handles or found}
    handle_in, gap_in = 3.4 * LABEL_PT / 72, 1.2 * LABEL_PT / 72
    room = figure.get_figwidth() - 0.1
    widths = [handle_in + gap_in + measure_text_width_in(name) for name in by_name]
    columns = next(
        (n for n in range(len(widths), 1, -1) if sum(map(max, np.array_split(widths, n))) <= room + gap_in), 1
    )
    names = ["\n".join(fold(name, room - handle_in)) for name in by_name]
    _grow(figure, figure.legend(by_name.values(), names, loc=loc, ncols=columns))


def thin_ticks(axes: Axes) -> None:
    """Leave out names of the x axis that would touch the one before; call it when all is drawn."""
    axes.figure.draw_without_rendering()
    shown = [label for label in axes.get_xticklabels() if label.get_text()]
    ends = [label.get_window_extent().padded(0.02 * DPI) for label in shown]
    labels, last = [label.get_text() for label in shown], -math.inf
    for place, end in enumerate(ends):
        if end.x0 < last:
            labels[place] = ""
        else:
            last = end.x1
    axes.set_xticks(axes.get_xticks()[: len(labels)], labels)


def choose_series_looks(names: Sequence[str]) -> dict[str, Look]:
    """Return a look for each name, in the paper's order; from the eighth on colours have another dash."""
    n = len(_LOOKS)
    shifted = [(_LOOKS[i % n], _LOOKS[(i + i // n) % n]) for i in range(len(names))]
    return {name: Look(one.colour, two.dash, two.marker) for name, (one, two) in zip(names, shifted)}


def choose_action_looks(actions: Set[str]) -> dict[str, Look]:
    """Return each action's look: first the paper's four, which have their own, then others by name."""
    paper = {action: look for action, look in _ACTIONS.items() if action in actions}
    return {**paper, **dict(zip(sorted(actions - _ACTIONS.keys()), itertools.cycle(_OTHER_ACTIONS)))}


def _grow(figure: Figure, artist: Any) -> None:
    """Make a figure higher by what stands outside of its axes."""
    height = artist.get_window_extent(figure.canvas.get_renderer()).height / figure.dpi
    figure.set_figheight(figure.get_figheight() + height + 0.03)


def measure_text_width_in(text: str, size_pt: float = LABEL_PT) -> float:
    """Return how wide a line of text is, with a margin for the rounding to pixels."""
    return 1.03 * size_pt / 72 * sum(map(_width_em, text))


@functools.cache
def _width_em(character: str) -> float:
    font = FontProperties(family=FONT, size=1)
    return float(text_to_path.get_text_width_height_descent(character, font, ismath=False)[0])
