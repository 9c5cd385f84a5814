"""Studies: `studies/<name>.yaml` names many variants of one benchmark and the comparisons to draw between them.

`plan` (what to run), `run` (train and evaluate what is missing), `stored` (results as small files for Git), `analysis`
(paired differences), `report` (what was found). The stored results alone make the report.
"""
