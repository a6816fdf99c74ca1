"""Real traffic, made small, and the means to play it into a running service."""
