"""The mechanism: heads that tell their losses by level, the detectors that weight them, the hook, the trace."""
