"""The commands ``anna`` and ``anna-lite``: parse, call one function, say what was written."""
