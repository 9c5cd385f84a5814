"""The report: `results` (files in), `statistics`, `sections` (numbers to content), `content`, `render` (out)."""
