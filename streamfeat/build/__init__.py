"""From event files to a dataset: tasks, workers, commit."""
