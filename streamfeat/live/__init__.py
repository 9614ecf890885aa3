"""Live training: producers write the next windows while the trainer reads, in a folder of bounded size."""
