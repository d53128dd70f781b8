"""One run: planned, prepared, and worked on by a process of its own."""
