"""How fast and how small: every row measures this project and a plain reference in one process, on equal results."""
