"""Output: views of diagnostics, plans and events. They say; where the words go, they are told."""
