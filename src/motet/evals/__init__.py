"""Evaluations: Inspect's tasks asked of our models, the card's settings and numbers beside the scores.

provider.py is a model for Inspect, sandbox.py a place for its code, catalogue.py what there is and what it needs, run.py a
run that can be stopped and gone on with; humaneval.py, bfcl.py, gym.py, polyglot.py are tasks of ours, elo.py the
arithmetic of ratings. Everything but catalogue.py, card.py, elo.py imports inspect_ai, an optional dependency.
"""
