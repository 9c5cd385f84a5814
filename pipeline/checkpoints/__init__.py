"""Weight files from elsewhere: `planned` (which file) -> `download` (fetched, verified) -> `starting` (used).

`read` opens a file without running code in it, `key_names` renames the authors' keys to ours.
"""
