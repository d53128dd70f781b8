"""The style of all figures: column widths, colours and markers, reproducible files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.reporting.tables.sections import Picture

COLUMN_IN = 3.4  # width of a figure in one column of a paper, in inches
DPI = 220

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
    marker: str
    fill: str = ""

    @property
    def area(self) -> str:
        return self.fill or self.colour


# The order of the paper's Fig 1, blue, green, red, yellow, pink = finest to coarsest; orange stands for
# yellow, which vanishes on paper. More levels than five start again in black and grey.
LEVELS = (
    Look(BLUE, "-", "o"),
    Look(GREEN, (0, (5, 1.5)), "s"),
    Look(RED, (0, (5, 1.5, 1, 1.5)), "^"),
    Look(ORANGE, (0, (1.2, 1.2)), "D"),
    Look(PINK, (0, (2.5, 1)), "v"),
    Look(BLACK, (0, (8, 2)), "x"),
    Look(GREY, (0, (3, 1, 1, 1, 1, 1)), "+"),
)
# Areas of four different lightnesses, so that a strip of them reads in grey, too.
ACTIONS = {
    "variance": Look(BLACK, "-", "o"),
    "smallest": Look(BLUE, (0, (5, 1.5)), "s"),
    "largest": Look(ORANGE, (0, (1.2, 1.2)), "^"),
    "uniform": Look("#8C8C8C", (0, (5, 1.5, 1, 1.5)), "D", "#DCDCDC"),
}

SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that a figure is the same everywhere
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 3.0,
    "axes.unicode_minus": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.0,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "grid.linewidth": 0.4,
    "grid.color": PALE,
    "axes.axisbelow": True,
    "text.parse_math": False,  # a `$` in the name of somebody's data set is a `$`
    "svg.fonttype": "path",  # needs no font where it is shown
    "svg.hashsalt": "msdet",  # ids that are the same in each drawing
    "savefig.facecolor": "white",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Apply the project's style within the context; restore the previous one after it."""
    plain = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    with matplotlib.rc_context({**plain, **SETTINGS}):
        yield


def new_figure(height_in: float, width_in: float = COLUMN_IN) -> Figure:
    """Return an empty figure that lays itself out, without pyplot's state; call it within `drawing`."""
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, hspace=0.03, wspace=0.03)
    FigureCanvasAgg(figure)
    return figure


def picture(figure: Figure, name: str, caption: str, alt: str) -> Picture:
    """Return the figure as PNG and self-contained SVG; the same bytes each time."""
    png, svg = io.BytesIO(), io.StringIO()
    with drawing(), warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes: nothing that a user must read a warning of.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
        figure.set_layout_engine("none")  # it has its layout by now
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(svg, format="svg", dpi=DPI, metadata=nothing)
    text = svg.getvalue()
    return Picture(name, caption, alt, png.getvalue(), text[text.index("<svg") :])  # no DOCTYPE, no address


def level_looks(levels: Sequence[str]) -> dict[str, Look]:
    """Return each level's look, finest first."""
    return {level: LEVELS[i % len(LEVELS)] for i, level in enumerate(levels)}


def action_looks(actions: Sequence[str]) -> dict[str, Look]:
    """Return each action's look: the paper's four have their own, other rules' get the rest."""
    spare = [Look(colour, "-", "v") for colour in (RED, SKY, GREEN, PINK, YELLOW)]
    own = [action for action in actions if action not in ACTIONS]
    return {**ACTIONS, **{action: spare[i % len(spare)] for i, action in enumerate(own)}}
