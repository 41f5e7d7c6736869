"""WORKER: delivers what others accepted. Any number of them may run against one database."""
