"""Before anything runs: is the configuration valid, how does it resolve, and what does one benchmark cost."""
