"""Settings: the schema, reading them, and flags."""
