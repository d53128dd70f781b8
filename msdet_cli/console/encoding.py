"""Output where the terminal's encoding lacks a character, as with PYTHONIOENCODING=ascii."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata

SPELT_OUT = {
    "±": "+/-", "−": "-", "–": "-", "—": "-", "×": "x", "·": "*", "…": "...", "→": "->", "≤": "<=", "≥": ">=",
    "α": "alpha", "γ": "gamma", "Δ": "Delta", "λ": "lambda", "π": "pi", "σ": "sigma", "│": "|", "─": "-",
}  # fmt: skip


def spell_out_unencodable() -> None:
    """Make standard output and error write `+/-` for `±`, and `?` for what has no such form."""
    codecs.register_error("spell-out", _spell_out)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="spell-out")
    if "PYTHONIOENCODING" in os.environ:
        os.environ["PYTHONIOENCODING"] = "utf-8"  # workers write files


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(_spelt, error.object[error.start : error.end])), error.end


def _spelt(character: str) -> str:
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return SPELT_OUT.get(character) or plain or "?"
