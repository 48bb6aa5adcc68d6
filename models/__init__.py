"""Released models: `find_model` takes them by their short names."""
