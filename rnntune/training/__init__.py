"""The training loop and the ways to run it."""
