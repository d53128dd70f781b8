"""What a person types: one short file per command. Importing it imports neither torch nor pandas."""

__version__ = "0.1.0"
