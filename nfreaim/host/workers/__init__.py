"""A daemon of several processes: the supervisor, the workers, their RPC and shared memory."""
