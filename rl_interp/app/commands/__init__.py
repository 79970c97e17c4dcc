"""The commands: a function each, whose arguments are its flags, whose docstring is their help, and whose result is
JSON-ready. `rl_interp.app.cli.COMMANDS` says which word calls which; help for a group of words is its module's
docstring."""
