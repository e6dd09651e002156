"""Programs in Docker containers, through the Engine API: the live container, helpers, sandboxes and volumes."""
