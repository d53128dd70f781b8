"""The command line, one short file per command; imports neither torch nor pandas."""

__version__ = "0.1.0"
