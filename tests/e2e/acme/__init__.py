"""An invented provider with OAuth: drivers, an emulator with rotating refresh tokens, and a house that knows them."""
