"""API: the HTTP face. Parse, call one service, render."""
