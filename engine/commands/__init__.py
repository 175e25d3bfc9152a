"""The commands of ``headstudio``, one file each. What takes long to import is imported inside the functions."""
