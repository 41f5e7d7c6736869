"""Lane: one connection's queue, and the process that works on it."""
