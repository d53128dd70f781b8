"""What every layer uses: errors, atomic files, locks, processes, the cache. Not: recipes or runs. No torch."""
