"""Human judgements: the store that keeps them, and the statistics that read them.

    records.py    the nouns: Provenance, Item, Submission, Ranking
    store.py      images, items, leases and append-only rankings in any SQL database
    identity.py    who an annotator is, under every spelling of the name
    ratings.py    Bradley-Terry, Plackett-Luce with ties, Elo, each with 95 % intervals
    agreement.py  how well annotators agree, and the ceiling that puts on a reward model
    accuracy.py   how often a scorer orders pairs as people did, and how sure it may be
    fit_report.py what a fit of a reward found, as its report.json holds it
    splits.py     train and test by prompt
    exchange.py   rankings to and from JSON lines

Nothing here imports torch.
"""
