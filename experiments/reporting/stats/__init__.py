"""Statistics over the seeds of runs: means, intervals, power, best values. No tables."""
