"""The tools' results, and what is stored with a backup: pydantic models without behaviour.

Everything may import it; it imports nothing of this package but `settings`."""
