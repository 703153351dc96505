"""Rankings: the store that keeps them, and statistics on them.

    records.py    the records: Provenance, Item, Submission, Ranking
    store.py      images, texts, items, leases and append-only rankings in any SQL database
    identity.py   one identity for all spellings of an annotator's name
    ratings.py    Bradley-Terry, Plackett-Luce with ties, Elo, each with 95 % intervals
    texts.py      texts by the hash of their bytes
    samples.py    rankings of images apart from those of texts
    agreement.py  inter-annotator agreement, the ceiling of a reward model's accuracy
    accuracy.py   pair accuracy and calibration of a scorer
    fit_report.py the report of a reward fit, report.json
    splits.py     train and test by prompt
    exchange.py   rankings to and from JSON lines

Nothing here imports torch.
"""
