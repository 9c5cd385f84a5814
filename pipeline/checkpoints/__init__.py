"""Weight files from elsewhere: `planned` (which file) -> `download` (fetched, verified) -> `starting` (used).

`read` opens a file without running code in it, `published` and `backbones` rename the authors' keys to ours.
"""
