"""The pages, one module per part of the console. Each function takes a visit and answers a response."""
