"""The files of a cluster: base backups, control data, recovery, and clusters that are made to be thrown away."""
