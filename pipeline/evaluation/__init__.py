"""Evaluation: `views` and their `averaging` make label maps, `evaluate` counts them, `score` writes the files."""
