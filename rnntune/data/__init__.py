"""Labelled text to length-bucketed batches of token ids."""
