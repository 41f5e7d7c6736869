"""Published OpenAPI files read, and drivers, emulators and fixtures held against them."""
