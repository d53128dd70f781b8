"""Escape any text for pdflatex with the fonts that every installation has."""

from __future__ import annotations

import unicodedata

from experiments.reporting.render.text import minus

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\ensuremath{\mathdollar}", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "'": "{'}", "`": "{`}",
    "[": "{[}", "]": "{]}",  # at the start of a row, `[` would be an option of the `\\` before it
    "-": "{-}",  # no ligatures: `--seeds` must stay as it is typed
    "±": r"\ensuremath{\pm}", "×": r"\ensuremath{\times}", "·": r"\ensuremath{\cdot}", "−": r"\ensuremath{-}",
    "≤": r"\ensuremath{\le}", "≥": r"\ensuremath{\ge}", "≈": r"\ensuremath{\approx}", "≠": r"\ensuremath{\neq}",
    "→": r"\ensuremath{\to}", "←": r"\ensuremath{\leftarrow}", "√": r"\ensuremath{\surd}", "∞": r"\ensuremath{\infty}",
    "†": r"\ensuremath{\dagger}", "‡": r"\ensuremath{\ddagger}", "§": r"\S{}", "¶": r"\P{}",
    "°": r"\ensuremath{^\circ}",
    "–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\dots{}", "•": r"\ensuremath{\bullet}",
    "²": r"\textsuperscript{2}", "³": r"\textsuperscript{3}", "µ": r"\ensuremath{\mu}", "÷": r"\ensuremath{\div}",
}  # fmt: skip
_GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
}  # fmt: skip
_CAPITALS = {"gamma", "delta", "theta", "lambda", "xi", "pi", "sigma", "upsilon", "phi", "psi", "omega"}


def escape_tex(text: str) -> str:
    """Return one line of LaTeX; a character that the fonts lack becomes its code point, `U+4E2D`."""
    return "".join(_character(character) for character in minus(" ".join(text.split())))


def make_comment(text: str) -> str:
    """Return a comment of one line, whatever the text holds."""
    return "% " + " ".join(text.split()).encode("ascii", "backslashreplace").decode()


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if " " <= character <= "~":
        return character
    return _greek(character) or _accented(character) or f"U+{ord(character):04X}"


def _greek(character: str) -> str:
    words = unicodedata.name(character, "").lower().split()
    if len(words) != 4 or words[0] != "greek" or words[2] != "letter":
        return ""
    name = words[3].replace("lamda", "lambda")
    if words[1] == "small" and name in _GREEK:
        return rf"\ensuremath{{\{name}}}"
    return rf"\ensuremath{{\{name.title()}}}" if name in _CAPITALS else ""


def _accented(character: str) -> str:
    """Return a Latin-1 letter that is a letter with an accent, or in every font; else nothing."""
    decomposed = unicodedata.normalize("NFD", character)
    simple = "À" <= character <= "ÿ" and len(decomposed) == 2
    return character if simple or character in "ßæøÆØ" else ""
