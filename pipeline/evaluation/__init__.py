"""Evaluation: `views` and their `averaging` make label maps, `evaluate` counts them, `run` writes the files."""
