"""Readers of records, a module for each form of file."""
