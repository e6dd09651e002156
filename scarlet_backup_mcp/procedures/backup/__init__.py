"""`backup`: PROC-004 steps 1 to 4, for a dump (`sql_dump`) and for a whole volume (`volume_copy`, `cold_copy`).

`service` is the entry point; `report` says what was made and whether PROC-003 may go ahead.
"""
