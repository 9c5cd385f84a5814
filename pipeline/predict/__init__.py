"""Label maps of any pictures: `pictures` finds and reads, `network` predicts, `outputs` writes, `folder` calls them."""
