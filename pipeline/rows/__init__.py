"""The published rows: which there are (`published`), what of them is on this machine (`present`), what running one
takes (`plan`, said by `describe`), and running it (`commands`, `run`).
"""
