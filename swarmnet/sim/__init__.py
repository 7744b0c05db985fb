"""Virtual time and a scripted network: the same exchange code without processes or sleeps.

``clock`` is an asyncio loop whose time jumps to the next timer; ``link`` and ``stream`` carry
frames with latency and bandwidth; ``network`` joins peers and breaks what a script says; ``peer``
is a whole gossip peer around the plain vector of ``vector``; ``book`` stands for the DHT;
``swarm`` builds many peers at once; ``script`` says what happens to them. ``docs/simulate.md``
shows how to use it.
"""
