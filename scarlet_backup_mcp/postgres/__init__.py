"""What PostgreSQL's own programs are asked, and how a plain dump reads. Knows no Docker."""
