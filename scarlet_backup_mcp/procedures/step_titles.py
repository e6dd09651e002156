"""The titles of PROC-004's steps in Italian. Procedures report them in English; `calls.call` puts the results into the
user's language."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..language import Language
from ..models.common import Step

ITALIAN = {
    # proc004.py
    "Docker and PostgreSQL are running": "Docker e PostgreSQL sono attivi",
    "Go to Scarlet's directory": "Vai nella directory di Scarlet",
    "Create the backup directory": "Crea la directory dei backup",
    "Make the SQL backup": "Esegui il backup SQL",
    "Back up the whole volume": "Esegui il backup dell'intero volume",
    "Check the backup": "Verifica il backup",
    "List the newest backups": "Elenca i backup più recenti",
    "Count the agents": "Conta gli agenti",
    "The file exists, is not empty, has the right time, and contains what it should": "Il file esiste, non è vuoto, ha "
    "l'ora giusta e contiene ciò che deve",
    "The archive exists, is not empty, has the right time, and contains what it should": "L'archivio esiste, non è "
    "vuoto, ha l'ora giusta e contiene ciò che deve",
    "Restore from an SQL backup": "Ripristina da un backup SQL",
    "Restore from a volume backup": "Ripristina da un backup del volume",
    "Keep daily, weekly and monthly backups": "Conserva backup giornalieri, settimanali e mensili",
    # of a restore
    "Find the undo point": "Trova il punto di annullamento",
    "Read the archive": "Leggi l'archivio",
    "Verify the backup in full": "Verifica il backup per intero",
    "Check that the server is ready": "Controlla che il server sia pronto",
    "Restore it into a sandbox and compare": "Ripristinalo in una sandbox e confronta",
    "Load it into a new database next to the live one": "Caricalo in un nuovo database accanto a quello attivo",
    "Put back owner, privileges and settings": "Riporta proprietario, privilegi e impostazioni",
    "Compare the rows of every table": "Confronta le righe di ogni tabella",
    "SELECT count(*) FROM {}, in the new database": "SELECT count(*) FROM {}, nel nuovo database",
    "Stop the services that depend on the database": "Ferma i servizi che dipendono dal database",
    "Keep the current database as {}": "Conserva il database attuale come {}",
    "Give the new database the name {}": "Dai al nuovo database il nome {}",
    "Start those services again": "Riavvia quei servizi",
    "Swap the databases by name, in one transaction": "Scambia i nomi dei due database, in una sola transazione",
    "Start the services that depend on the database": "Avvia i servizi che dipendono dal database",
    "Drop the oldest undo point, as asked": "Elimina il punto di annullamento più vecchio, come richiesto",
    # of a volume
    "Check that the volume is ready": "Controlla che il volume sia pronto",
    "Verify the archive in full": "Verifica l'archivio per intero",
    "Restore it into a sandbox": "Ripristinalo in una sandbox",
    "Unpack it next to the current contents": "Estrailo accanto al contenuto attuale",
    "Unpack it next to the current contents, and read it back": "Estrailo accanto al contenuto attuale e rileggilo",
    "Comment out what its configuration would do": "Commenta ciò che la sua configurazione farebbe",
    "Stop the services that depend on the server, and the server": "Ferma i servizi che dipendono dal server, e il "
    "server",
    "Exchange the contents of the volume by renames": "Scambia il contenuto del volume rinominando",
    "Start the server, look at it, and start those services again": "Avvia il server, controllalo e riavvia quei "
    "servizi",
    "Start the server and look at it": "Avvia il server e controllalo",
}
"""`{}` stands for a name."""


def in_language(steps: Iterable[Step], language: Language) -> list[Step]:
    """Return the steps with titles in that language."""
    if language == "en":
        return list(steps)
    return [step.model_copy(update={"title": _italian(step.title)}) for step in steps]


def _italian(title: str) -> str:
    """Return the Italian title; a query, which has no translation, is its own."""
    for english, italian in ITALIAN.items():
        pattern = "(.+)".join(re.escape(part) for part in english.split("{}"))
        if (found := re.fullmatch(pattern, title)) is not None:
            return italian.format(*found.groups())
    return title
