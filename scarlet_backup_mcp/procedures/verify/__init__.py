"""`verify_backup`: PROC-004 step 4 and "Verifica Finale", for a dump (`sql`) and for a volume archive (`volume`).

`outcomes` keeps the results with the backup.
"""
