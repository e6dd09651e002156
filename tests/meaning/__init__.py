"""Databases whose dump comes back with other values, or with the same words for something else."""
