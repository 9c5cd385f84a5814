"""Files on this machine: whole or absent, downloads, archives, locks."""
