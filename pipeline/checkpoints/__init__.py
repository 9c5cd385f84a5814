"""Weight files from elsewhere: `read` opens them safely, `published` renames the authors' keys to ours.

One module per published backbone (`resnet`). Nothing here imports the networks, so both `pipeline.models` (encoder
weights) and the later packages may use it.
"""
