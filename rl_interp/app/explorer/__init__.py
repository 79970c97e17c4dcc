"""The explorer: a page on which an agent is watched, opened, changed and played on, and the server behind it.

The server owns no analysis: each answer is a call of what the commands call. It keeps no state of a page either: a
request says all that it is about, and the page's address holds the same, so a server that is started again answers as
the old one did. What is kept are agents and recordings, to be quick.
"""
