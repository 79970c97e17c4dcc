"""A plane with a post in the middle, which can be passed above or below: two equally good ways."""
