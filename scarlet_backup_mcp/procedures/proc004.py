"""Every step of PROC-004, once: its name there, its title in English, and the module that does it.

| In PROC-004 | Here |
|---|---|
| Prerequisiti: the container is Up | `integrity.db_integrity`, `recovery.journal.require_running` |
| Passo 1 and 2: Scarlet's directory, `backups` in it | `context.BackupContext.directory` |
| Passo 3: `pg_dump` | `backup.sql_dump.stream` |
| Passo 4 and Verifica Finale: there, not of size 0, of the right time | `reading.checks.name_checks`, `listing` |
| Passo 5: count the agents | `integrity.db_integrity` |
| Restore da backup SQL | `restore.sql_staging.from_backup`, `restore.sql_swap.swap` |
| Alternativa: Backup Volume Completo | `backup.volume_copy.copy`, `backup.cold_copy.copy` |
| Restore da volume | `restore.volume_restore.VolumeRestore` |
| Troubleshooting: `up -d`, then wait ten seconds | `recovery.volume_exchange.wait_until_ready`; remedies in `errors` |
| Politica di Retention: keep at least 3 recent backups | `catalog.retention.decide`, `prune.prune` |
"""

from __future__ import annotations

from dataclasses import dataclass

from ..models.common import Step


@dataclass(frozen=True)
class ProcedureStep:
    """A step that results report. `step` is PROC-004's own heading."""

    step: str
    title: str

    def reported(self, ok: bool | None, detail: str = "") -> Step:
        """Report the step in a result; `ok` None: it was not needed, not done, or could not be checked."""
        return Step(step=self.step, title=self.title, ok=ok, detail=detail)

    def titled(self, title: str) -> ProcedureStep:
        """Return this step with another title, for one of several parts."""
        return ProcedureStep(self.step, title)


PREREQUISITES = ProcedureStep("Prerequisiti", "Docker and PostgreSQL are running")
GO_TO_DIRECTORY = ProcedureStep("Passo 1", "Go to Scarlet's directory")
CREATE_BACKUPS = ProcedureStep("Passo 2", "Create the backup directory")
DUMP = ProcedureStep("Passo 3", "Make the SQL backup")
COPY_VOLUME = ProcedureStep("Alternativa: Backup Volume Completo", "Back up the whole volume")
CHECK_BACKUP = ProcedureStep("Passo 4", "Check the backup")
NEWEST_BACKUPS = ProcedureStep("Passo 4", "List the newest backups")
COUNT_AGENTS = ProcedureStep("Passo 5", "Count the agents")
FINAL_CHECK = ProcedureStep(
    "Verifica Finale", "The file exists, is not empty, has the right time, and contains what it should"
)
FINAL_CHECK_OF_VOLUME = FINAL_CHECK.titled(
    "The archive exists, is not empty, has the right time, and contains what it should"
)
RESTORE = ProcedureStep("Restore", "Restore from an SQL backup")
RESTORE_VOLUME = ProcedureStep("Restore da volume", "Restore from a volume backup")
RETENTION = ProcedureStep("Politica di Retention Consigliata", "Keep daily, weekly and monthly backups")
