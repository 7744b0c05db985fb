"""What a process is to the swarm; the file name is the value of ``--role``."""
