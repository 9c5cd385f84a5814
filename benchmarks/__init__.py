"""How fast and how small: every row measures this project and the authors' toolbox in one process, on equal results."""
