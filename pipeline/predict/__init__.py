"""Label maps of any pictures: `pictures` finds and reads, `network` predicts, `outputs` writes, `folder` has it all."""
