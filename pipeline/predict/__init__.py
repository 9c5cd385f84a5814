"""Label maps of any pictures: `pictures` (find, read), `network` (predict), `outputs` (write), `run` (the command)."""
