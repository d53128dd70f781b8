"""What every layer uses: errors, atomic files, processes, the cache. Knows no recipe and no run."""
