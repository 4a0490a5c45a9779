"""How a recurrence is run over time: backends of one call, and the dispatch between them."""
