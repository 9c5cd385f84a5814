"""What `make check` tells: every problem at once, else which stages would run, for how long, on how much disk."""
