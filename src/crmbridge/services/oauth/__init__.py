"""OAUTH: links to consent, the apps of this installation at the providers, and the token endpoint's protocol."""
