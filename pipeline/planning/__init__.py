"""What is wrong, what is missing, what would run; and the commands that run it: rows, studies, jobs."""
