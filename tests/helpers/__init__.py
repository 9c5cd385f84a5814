"""What several tests share: projects, data, networks, results, servers. Nothing here imports a test."""
