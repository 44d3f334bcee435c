"""Watchers over events and router counts: the same in studies and, live, in the server. They know no model and no HTTP."""
