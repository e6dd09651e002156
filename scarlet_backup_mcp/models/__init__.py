"""What comes out of the tools and what is kept beside a backup: pydantic models, and nothing that does anything.

Everything may import it; it imports nothing of this package but `settings`."""
