"""Which connections of an agent compute a decision: its graph, masks of edges, and what replaces what is masked."""
