"""Parametric heads in FLAME's form: the default CC0 head and the user's own FLAME."""
