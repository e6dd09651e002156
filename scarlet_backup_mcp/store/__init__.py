"""The backup directory: names, partial files, manifests, locks, encodings. Knows neither PostgreSQL nor Docker.

Procedures import it; it imports models and errors only.
"""
