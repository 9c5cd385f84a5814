"""Where the arithmetic runs: device and seeds, several processes, what a result depends on."""
