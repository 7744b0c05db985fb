"""Virtual time and a scripted network: the same exchange code without processes or sleeps.

``clock`` is an asyncio loop whose time jumps to the next timer; ``network`` delivers frames between
simulated peers with latency and bandwidth and breaks streams where a script says so; ``peer`` is a
whole gossip peer around a plain vector.
"""
