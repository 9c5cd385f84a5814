"""Label maps of one's own pictures: `pictures` (finding, reading), `network`, `outputs` (writing), `run`."""
