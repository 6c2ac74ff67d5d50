"""The search for a good configuration."""
