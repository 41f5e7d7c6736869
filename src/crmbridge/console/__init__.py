"""CONSOLE: the operator's pages under ``/admin``. Server-rendered; works without JavaScript."""
