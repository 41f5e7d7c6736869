"""Words: pure types that every other room uses. Standard library and msgspec only, no I/O."""
