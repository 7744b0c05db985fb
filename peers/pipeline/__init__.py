"""A pipeline on this machine: its demo, its story, what is shown of it, and the last act."""
