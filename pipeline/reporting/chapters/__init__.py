"""The chapters of a report: each function returns one, or none where the study has no data for it."""
