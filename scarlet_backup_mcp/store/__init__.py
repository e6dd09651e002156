"""The backup directory: names, partial files, manifests, locks, encodings. Knows neither PostgreSQL nor Docker."""
