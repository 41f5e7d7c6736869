"""Custom webhook: signed writes to a receiver of the customer's own."""
