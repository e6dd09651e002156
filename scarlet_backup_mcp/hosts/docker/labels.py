"""Labels on containers and volumes: Compose's, and ours."""

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
ONEOFF = "com.docker.compose.oneoff"
WORKING_DIR = "com.docker.compose.project.working_dir"
DEPENDS_ON = "com.docker.compose.depends_on"
"""What Compose v2 puts on its containers."""

DRILL = "scarlet-backup-mcp.drill"
"""On a sandbox's container and on its volume; the value is their owner."""
SEED = "scarlet-backup-mcp.sandbox"
"""On a seed volume (see `seeds`) and on the container that fills it; the value is the owner it was filled for."""
HELPER = "scarlet-backup-mcp.helper"
"""On a helper container; the value is its owner."""
OWN = (DRILL, SEED, HELPER)
