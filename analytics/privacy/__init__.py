"""The data of a person: export.py shows it, erase.py deletes it, selection.py finds it."""
