"""More than one process: the supervisor, the workers, and what passes between them."""
