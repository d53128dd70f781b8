"""What Rich draws: result tables, the view of a queue at work, the plan of a dry run."""
