"""The report: `study` (results in), `chapters/` (numbers to tables and figures), `templates/` (prose), `page` (out)."""
