"""The processes of a swarm: the only place where the network, the exchange and training meet."""
