"""The run folder: its file names, record, states, lock, flags and export. No torch, no recipes."""
