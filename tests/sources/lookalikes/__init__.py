"""Stores that look like those of the systems that presets are for: their tables in a few columns, real engines."""
