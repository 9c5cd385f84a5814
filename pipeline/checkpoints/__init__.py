"""Weight files from elsewhere: which are needed, fetching them, reading them safely, renaming their keys to ours.

`planned` -> `download` -> `starting` (the file a benchmark starts from); `read` opens it, `published` renames the
authors' keys, with one module per published backbone, and `describe` says what a file is. Nothing here imports the
networks, so both `pipeline.models` (encoder weights) and the later packages may use it.
"""
