from support.jobs import tiny_prior

__all__ = ["tiny_prior"]
