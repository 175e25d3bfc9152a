"""HeadStudio's engine: a prompt becomes an animatable Gaussian head avatar.

Importing this package costs nothing: torch, diffusers and numba are imported by the modules that use them.
`engine/README.md` is the map; the import name is ``headstudio`` (see ``pyproject.toml``).
"""

__version__ = "0.1.0"
