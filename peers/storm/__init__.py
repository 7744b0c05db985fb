"""A seeded storm on the processes of a local swarm: what is to happen, to whom, and by what means.

``plan`` says from a file and a seed when which fault begins; ``ward`` decides whom it hits and
when it is over; ``hands`` do it to real processes, by signals, limits and the ``weather`` file
that children read; ``lab`` joins the three. ``docs/storms.md`` says what each fault does.
"""
