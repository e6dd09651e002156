"""The files of a cluster: base backups, control data, recovery, and temporary clusters."""
